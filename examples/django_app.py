# stoker examples.django_app:app
"""Django, a project in one file: a form with CSRF protection, a session, a stream, an upload, a file and an error."""

import hashlib
import os
from collections.abc import Iterator

from django import forms
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.urls import path

settings.configure(
    # A key of your own, the same in all workers: sessions are signed with it.
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this example only"),
    ALLOWED_HOSTS=["*"],  # for this example only: name the hosts that you serve
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    # Without DEBUG Django says nothing of a 500 unless it is told where.
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "loggers": {"django.request": {"handlers": ["stderr"], "level": "ERROR", "propagate": False}},
    },
)

PAGE = """<!doctype html><title>Django on Stoker</title>
<h1>Django on Stoker</h1>
<p>Hello, {{ name }}. Visits in this session: {{ visits }}</p>
<form method="post">{% csrf_token %}{{ form }}<button>Say</button></form>
<p><a href="stream">stream</a> <a href="download">download</a> <a href="error">error</a></p>
<form method="post" action="upload" enctype="multipart/form-data">{% csrf_token %}
<input type="file" name="file"><button>Upload</button></form>
"""


class NameForm(forms.Form):
    name = forms.CharField(max_length=40)


def index(request: HttpRequest) -> HttpResponse:
    form = NameForm(request.POST or None)
    if form.is_valid():
        request.session["name"] = form.cleaned_data["name"]
        return redirect("index")
    request.session["visits"] = request.session.get("visits", 0) + 1
    values = {"form": form, "name": request.session.get("name", "stranger"), "visits": request.session["visits"]}
    return HttpResponse(engines["django"].from_string(PAGE).render(values, request))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """A response whose length nobody knows beforehand: it is sent chunk by chunk."""

    def lines() -> Iterator[str]:
        for number in range(int(request.GET.get("lines", "10"))):
            yield f"line {number}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain; charset=utf-8")


def upload(request: HttpRequest) -> JsonResponse:
    file = request.FILES.get("file")
    if file is None:
        return JsonResponse({"error": "there is no file in the form"}, status=400)
    digest = hashlib.sha256()
    for piece in file.chunks():
        digest.update(piece)
    return JsonResponse({"name": file.name, "bytes": file.size, "sha256": digest.hexdigest()})


def download(request: HttpRequest) -> FileResponse:
    """This file. `FileResponse` uses `wsgi.file_wrapper`, so the kernel sends it (sendfile(2))."""
    return FileResponse(open(__file__, "rb"), as_attachment=True, content_type="text/x-python")


def error(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the error that was asked for")


urlpatterns = [
    path("", index, name="index"),
    path("stream", stream),
    path("upload", upload),
    path("download", download),
    path("error", error),
]

app = get_wsgi_application()
