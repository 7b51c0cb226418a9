/* The reference: HTTP on epoll, one process, one thread. `epoll PORT [--edge] [--echo]`
 *
 * Level trigger: one recv for an event, answers sent at once, epoll_ctl only when the interest changes.
 * --edge registers once for both directions, and reads until a recv comes back short (epoll(7), Q9).
 */
#include "common.h"
#include <sys/epoll.h>

struct connection {
    int fd;
    struct reading reading;
    char *out; /* what the kernel had no room for */
    size_t size, sent;
    unsigned interest;
};

static struct connection *connections[DESCRIPTORS];
static int poller, edge;
static char buffer[BUFFER];

static void interest(struct connection *c, unsigned events) {
    if (edge || c->interest == events) return;
    struct epoll_event event = {.events = c->interest = events, .data.fd = c->fd};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void finish(struct connection *c) {
    connections[c->fd] = NULL;
    close(c->fd);
    free(c->out);
    free(c->reading.held);
    free(c);
}

static void emit(struct connection *c, const char *data, size_t size) {
    if (!c->out) {
        ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
        if (n == (ssize_t)size) return;
        if (n < 0 && errno != EAGAIN) return; /* the next recv tells */
        if (n > 0) data += n, size -= n;
    }
    if (!(c->out = realloc(c->out, c->size + size))) die("realloc");
    memcpy(c->out + c->size, data, size);
    c->size += size;
}

static int drain(struct connection *c) {
    while (c->sent < c->size) {
        ssize_t n = send(c->fd, c->out + c->sent, c->size - c->sent, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN ? 0 : -1;
        c->sent += n;
    }
    free(c->out);
    c->out = NULL;
    c->size = c->sent = 0;
    return 1;
}

/* Whether the connection lives on. */
static int serve(struct connection *c, unsigned events) {
    if (c->out) {
        int done = drain(c);
        if (done <= 0) return done == 0;
        if (c->reading.closing) return 0;
        interest(c, EPOLLIN);
        if (!edge) return 1;
    }
    if (!(events & ~EPOLLOUT) && !edge) return 1;
    ssize_t n;
    do {
        n = recv(c->fd, buffer, BUFFER, 0);
        if (n <= 0) return n < 0 && errno == EAGAIN;
        if (!received(c, &c->reading, buffer, n)) return 0;
        if (c->out) {
            interest(c, EPOLLOUT);
            return 1;
        }
        if (c->reading.closing) return 0;
    } while (edge && n == BUFFER);
    return 1;
}

static void accept_all(int listener) {
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct connection *c = fd < DESCRIPTORS ? calloc(1, sizeof *c) : NULL;
        if (!c) {
            close(fd);
            continue;
        }
        c->fd = fd;
        c->interest = edge ? EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET : EPOLLIN;
        struct epoll_event event = {.events = c->interest, .data.fd = fd};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
        connections[fd] = c;
    }
}

int main(int count, char **words) {
    if (count < 2) return fprintf(stderr, "usage: epoll PORT [--edge] [--echo]\n"), 2;
    for (int i = 2; i < count; i++) {
        if (!strcmp(words[i], "--edge")) edge = 1;
        else if (!strcmp(words[i], "--echo")) echo = 1;
        else return fprintf(stderr, "epoll: unknown option %s\n", words[i]), 2;
    }
    int listener = listen_on(atoi(words[1]));
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    struct epoll_event ready[512], event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event)) die("epoll_ctl");
    for (;;) {
        int n = epoll_wait(poller, ready, 512, -1);
        tick();
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) accept_all(listener);
            else if (connections[fd] && !serve(connections[fd], ready[i].events)) finish(connections[fd]);
        }
    }
}
