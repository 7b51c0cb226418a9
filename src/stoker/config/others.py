"""Every flag of gunicorn 27 and uvicorn 0.54, and what it is here.

A flag that Stoker knows, by the same name or as an alias, needs no more than its mention: the table of options says the
rest. Every other flag has an advice, which the documentation shows and which is the error when the flag is used here.
`tests/cli/test_others.py` reads the `--help` of both servers and fails when a flag is missing.
"""

from dataclasses import dataclass

GUNICORN, UVICORN = "gunicorn 27", "uvicorn 0.54"


@dataclass(frozen=True, slots=True)
class Other:
    """Flags of another server that mean one thing: blank-separated `flags`; `setting` is the name in gunicorn.conf.py.

    `advice` says what to do in place of a flag that Stoker has not. `note` says how a flag that it has differs.
    """

    flags: str
    setting: str = ""
    advice: str = ""
    note: str = ""


NO_TLS = "this version speaks no TLS: put nginx, HAProxy or another TLS proxy before it"
NO_PROXY = (
    "this version takes the client's address from the connection alone; let the application read the proxy's fields"
)
NO_ASGI = "this version serves no ASGI application"
NO_WEBSOCKET = "this version speaks no WebSocket"
NO_HTTP2 = "this version speaks HTTP/1.1 alone: let the proxy before it speak HTTP/2"
NO_SYSLOG = "log to standard error and let the service manager pass it on (systemd-cat, logger)"
NO_STATSD = "there are no statsd metrics; the access log has each request with its times (--access-log-json)"
NO_PASTE = "write a module that makes the application, and name it: module:make()"
NO_DIRTY = "there is no such pool: run a task queue beside the server"
NO_LENIENCY = "what a proxy and a server could read differently is always refused (RFC 9112)"
NO_CONTROL = "there is no control socket: send signals (HUP, TTIN, TTOU, USR1, TERM) or use the keys (--keys)"
NO_PARSER = "there is one parser"
NO_LOGGING = "the standard library's logging is not used; see --log-level, --error-logfile and --access-logformat"
NO_FIELDS = "let the application or the proxy add response fields"
ONE_RELOADER = "the way to watch files is chosen by itself: watchfiles where it is installed, else by asking for times"

FROM_GUNICORN = (
    Other("-h --help"),
    Other("-v --version"),
    Other("-c --config", "config", note="a TOML file; `gunicorn.conf.py` is refused with the equivalent TOML printed"),
    Other("-b --bind", "bind", note="$PORT is not read: write `--bind 0.0.0.0:$PORT`"),
    Other("--backlog", "backlog"),
    Other("-w --workers", "workers", note="also `auto`; $WEB_CONCURRENCY is the default"),
    Other("-k --worker-class", "worker_class", note="sync → epoll; gthread → epoll with --threads; asgi → asyncio"),
    Other("--threads", "threads", note="0, the default: the application runs inline"),
    Other("--worker-connections", "worker_connections", note="by default what the engine can hold"),
    Other("--max-requests", "max_requests"),
    Other("--max-requests-jitter", "max_requests_jitter"),
    Other(
        "-t --timeout", "timeout", note="watches the worker's loop and never limits a request: see --request-timeout"
    ),
    Other("--graceful-timeout", "graceful_timeout"),
    Other("--keep-alive", "keepalive", note="75 by default"),
    Other("--limit-request-line", "limit_request_line", note="8190 by default"),
    Other("--limit-request-fields", "limit_request_fields"),
    Other("--limit-request-field_size", "limit_request_field_size"),
    Other("--reload", "reload"),
    Other("--reload-engine", "reload_engine", ONE_RELOADER),
    Other(
        "--reload-extra-file",
        "reload_extra_files",
        "watch its directory by --reload-dir and its name by --reload-include",
    ),
    Other("--spew", "spew", "run the application under a debugger (python -m pdb) or python -m trace"),
    Other("--check-config", "check_config"),
    Other("--print-config", "print_config", note="does not import the application; add --check-config for that"),
    Other("--preload", "preload_app"),
    Other("--no-sendfile", "sendfile", "sendfile(2) is used wherever the application hands over a file"),
    Other("--reuse-port", "reuse_port"),
    Other("--chdir", "chdir"),
    Other("-D --daemon", "daemon", "let systemd run it, or: setsid stoker … &"),
    Other(
        "-e --env", "raw_env", "write the variables into a file and name it by --env-file, or: env NAME=VALUE stoker …"
    ),
    Other("-p --pid", "pidfile"),
    Other(
        "--worker-tmp-dir", "worker_tmp_dir", "no file is needed: the master watches its workers through shared memory"
    ),
    Other("-u --user", "user"),
    Other("-g --group", "group"),
    Other("-m --umask", "umask", note="by default the one that was inherited"),
    Other("--initgroups", "initgroups", "leave it out: --user always takes over the supplementary groups of the user"),
    Other("--forwarded-allow-ips", "forwarded_allow_ips", NO_PROXY),
    Other("--access-logfile", "accesslog"),
    Other("--disable-redirect-access-to-syslog", "disable_redirect_access_to_syslog", NO_SYSLOG),
    Other("--access-logformat", "access_log_format", note="the same atoms, and `%(wait)s %(app)s %(write)s`"),
    Other("--error-logfile --log-file", "errorlog"),
    Other("--log-level", "loglevel"),
    Other("--capture-output", "capture_output", "let the shell or the service manager do it: stoker … >>FILE 2>&1"),
    Other("--logger-class", "logger_class", NO_LOGGING),
    Other("--log-config", "logconfig", NO_LOGGING),
    Other("--log-config-json", "logconfig_json", NO_LOGGING),
    Other("--log-syslog-to", "syslog_addr", NO_SYSLOG),
    Other("--log-syslog", "syslog", NO_SYSLOG),
    Other("--log-syslog-prefix", "syslog_prefix", NO_SYSLOG),
    Other("--log-syslog-facility", "syslog_facility", NO_SYSLOG),
    Other(
        "-R --enable-stdio-inheritance", "enable_stdio_inheritance", "standard output and error are always inherited"
    ),
    Other("--statsd-host", "statsd_host", NO_STATSD),
    Other("--dogstatsd-tags", "dogstatsd_tags", NO_STATSD),
    Other("--statsd-prefix", "statsd_prefix", NO_STATSD),
    Other("--enable-backlog-metric", "enable_backlog_metric", NO_STATSD),
    Other("-n --name", "proc_name"),
    Other("--pythonpath", "pythonpath"),
    Other("--paste --paster", "paste", NO_PASTE),
    Other("--proxy-protocol", "proxy_protocol", NO_PROXY),
    Other("--proxy-allow-from", "proxy_allow_ips", NO_PROXY),
    Other("--protocol", "protocol", "HTTP is spoken, or what a raw TCP handler speaks (--tcp); for uwsgi use uWSGI"),
    Other("--uwsgi-allow-from", "uwsgi_allow_ips", "the uwsgi protocol is not spoken: let nginx use proxy_pass"),
    Other("--keyfile", "keyfile", NO_TLS),
    Other("--certfile", "certfile", NO_TLS),
    Other("--ssl-version", "ssl_version", NO_TLS),
    Other("--cert-reqs", "cert_reqs", NO_TLS),
    Other("--ca-certs", "ca_certs", NO_TLS),
    Other("--suppress-ragged-eofs", "suppress_ragged_eofs", NO_TLS),
    Other("--do-handshake-on-connect", "do_handshake_on_connect", NO_TLS),
    Other("--ciphers", "ciphers", NO_TLS),
    Other("--http-protocols", "http_protocols", NO_HTTP2),
    Other("--http2-cleartext", "http2_cleartext", NO_HTTP2),
    Other("--http2-max-concurrent-streams", "http2_max_concurrent_streams", NO_HTTP2),
    Other("--http2-initial-window-size", "http2_initial_window_size", NO_HTTP2),
    Other("--http2-max-frame-size", "http2_max_frame_size", NO_HTTP2),
    Other("--http2-max-header-list-size", "http2_max_header_list_size", NO_HTTP2),
    Other("--paste-global", "raw_paste_global_conf", NO_PASTE),
    Other("--permit-obsolete-folding", "permit_obsolete_folding", NO_LENIENCY),
    Other("--strip-header-spaces", "strip_header_spaces", NO_LENIENCY),
    Other(
        "--permit-unconventional-http-method",
        "permit_unconventional_http_method",
        "leave it out: every method that is a token is passed on",
    ),
    Other("--permit-unconventional-http-version", "permit_unconventional_http_version", NO_LENIENCY),
    Other("--casefold-http-method", "casefold_http_method", "methods are case-sensitive (RFC 9110 section 9.1)"),
    Other(
        "--forwarder-headers",
        "forwarder_headers",
        "no field of a request sets SCRIPT_NAME or PATH_INFO; see --root-path",
    ),
    Other("--header-map", "header_map", note="drop or refuse; `dangerous` is not offered"),
    Other("--asgi-loop", "asgi_loop", "use --loop"),
    Other("--asgi-lifespan", "asgi_lifespan", NO_ASGI),
    Other("--asgi-disconnect-grace-period", "asgi_disconnect_grace_period", NO_ASGI),
    Other("--websocket-max-message-size", "websocket_max_message_size", NO_WEBSOCKET),
    Other("--http-parser", "http_parser", NO_PARSER),
    Other("--root-path", "root_path"),
    Other("--dirty-app", "dirty_apps", NO_DIRTY),
    Other("--dirty-workers", "dirty_workers", NO_DIRTY),
    Other("--dirty-timeout", "dirty_timeout", NO_DIRTY),
    Other("--dirty-threads", "dirty_threads", NO_DIRTY),
    Other("--dirty-graceful-timeout", "dirty_graceful_timeout", NO_DIRTY),
    Other("--control-socket", "control_socket", NO_CONTROL),
    Other("--control-socket-mode", "control_socket_mode", NO_CONTROL),
    Other("--no-control-socket", "control_socket_disable", "leave it out: there is no control socket"),
)

# Settings that gunicorn.conf.py may hold and that have no flag.
SETTINGS_WITHOUT_FLAG = (
    Other("", "wsgi_app", note="app"),
    Other("", "tmp_upload_dir", "long bodies go to the directory for temporary files ($TMPDIR)"),
    Other("", "secure_scheme_headers", NO_PROXY),
    Other("", "logconfig_dict", NO_LOGGING),
    Other("", "default_proc_name", "use proc_name"),
    Other("", "ssl_context", NO_TLS),
)
HOOK = "there are no server hooks: a module of the application runs in each worker when it is imported"

FROM_UVICORN = (
    Other("--host", note="with --port, the same as --bind HOST:PORT"),
    Other("--port", note="with --host, the same as --bind HOST:PORT"),
    Other("--uds", note="the same as --bind unix:PATH; its permissions: --socket-mode"),
    Other("--fd", note="the same as --bind fd://N"),
    Other("--reload"),
    Other("--reload-dir"),
    Other("--reload-include"),
    Other("--reload-exclude"),
    Other("--reload-delay", advice=ONE_RELOADER),
    Other("--workers", note="also `auto`; may be used with --reload"),
    Other("--loop", note="auto, asyncio or uvloop, for engine asyncio"),
    Other("--http", advice=NO_PARSER),
    Other("--http2", advice=NO_HTTP2),
    Other("--ws", advice=NO_WEBSOCKET),
    Other("--ws-max-size", advice=NO_WEBSOCKET),
    Other("--ws-max-queue", advice=NO_WEBSOCKET),
    Other("--ws-ping-interval", advice=NO_WEBSOCKET),
    Other("--ws-ping-timeout", advice=NO_WEBSOCKET),
    Other("--ws-per-message-deflate", advice=NO_WEBSOCKET),
    Other("--lifespan", advice=NO_ASGI),
    Other("--interface", note="auto, wsgi or tcp"),
    Other("--env-file"),
    Other("--log-config", advice=NO_LOGGING),
    Other("--log-level", note="trace counts as debug"),
    Other("--access-log --no-access-log", note="off by default"),
    Other("--use-colors --no-use-colors"),
    Other("--proxy-headers --no-proxy-headers", advice=NO_PROXY),
    Other("--server-header --no-server-header"),
    Other("--date-header --no-date-header", advice="leave it out: Date is always sent (RFC 9110 section 6.6.1)"),
    Other("--forwarded-allow-ips", advice=NO_PROXY),
    Other("--root-path"),
    Other("--limit-concurrency", advice="use --max-connections N --on-overload 503"),
    Other("--backlog"),
    Other("--limit-max-requests", note="the worker is replaced; uvicorn ends"),
    Other("--limit-max-requests-jitter"),
    Other("--timeout-keep-alive", note="75 by default"),
    Other("--timeout-graceful-shutdown", note="30 by default"),
    Other("--timeout-worker-healthcheck", note="30 by default"),
    Other("--ssl-keyfile", advice=NO_TLS),
    Other("--ssl-certfile", advice=NO_TLS),
    Other("--ssl-keyfile-password", advice=NO_TLS),
    Other("--ssl-version", advice=NO_TLS),
    Other("--ssl-cert-reqs", advice=NO_TLS),
    Other("--ssl-ca-certs", advice=NO_TLS),
    Other("--ssl-ciphers", advice=NO_TLS),
    Other("--header", advice=NO_FIELDS),
    Other("--version"),
    Other("--app-dir"),
    Other("--h11-max-incomplete-event-size", note="64 KiB by default, for the whole head of a request"),
    Other("--reset-contextvars", advice=NO_ASGI),
    Other("--factory"),
    Other("--help"),
)


def refused() -> dict[str, str]:
    """Every flag that is refused here, with the advice."""
    return {
        flag: other.advice for other in (*FROM_GUNICORN, *FROM_UVICORN) if other.advice for flag in other.flags.split()
    }


def settings() -> dict[str, Other]:
    """What gunicorn.conf.py may hold, by name, but for hooks."""
    return {other.setting: other for other in (*FROM_GUNICORN, *SETTINGS_WITHOUT_FLAG) if other.setting}


def advice_for_setting(name: str) -> str:
    """What to say about a key that belongs to another server: ": advice", or nothing."""
    by_flag = refused().get("--" + name.replace("_", "-"))
    by_setting = settings()[name].advice if name in settings() else None
    advice = by_flag or by_setting
    return f": {advice}" if advice else ""
