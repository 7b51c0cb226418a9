/* What the C baselines share: reading requests and making the canned answers. Each baseline defines emit().
 *
 * They are the reference for the cost of a request, so they do what any HTTP server must do and no more: find the end of the head,
 * look at three fields, answer with Date and Server, keep the order of pipelined requests. They are not strict; Stoker is.
 *
 *   /        13 bytes        /64k    65,536 bytes        /stream   16 chunks of 1,024 bytes, each sent on its own
 *   /upload  reads the body that Content-Length announces, answers its length
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 65536, LARGE = 65536, CHUNK = 1024, CHUNKS = 16, DESCRIPTORS = 65536 };

struct connection;
static void emit(struct connection *, const char *, size_t); /* one send of these bytes, now or as soon as there is room */

struct reading {           /* what a connection keeps of its requests */
    char *held;            /* a head that is not whole yet */
    size_t kept;
    size_t body, left;     /* bytes of the body under way: announced, still to come */
    int closing;           /* the last answer has been given */
};

static int echo;           /* raw TCP: what comes goes back */
static char date[64];
static char hello[512], goodbye[512], large[LARGE + 512]; /* goodbye: hello on a connection that is closed after it */
static size_t hello_size, goodbye_size, large_size;

static void die(const char *what) {
    fprintf(stderr, "baseline: %s: %s\n", what, strerror(errno));
    exit(1);
}

#define HEAD "HTTP/1.1 200 OK\r\nServer: baseline\r\nDate: %s\r\nContent-Type: text/plain\r\n"

/* Once a second: the field Date, and the answers that hold it. */
static void tick(void) {
    static time_t last;
    time_t now = time(NULL);
    if (now == last) return;
    last = now;
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    hello_size = sprintf(hello, HEAD "Content-Length: 13\r\n\r\nHello, world!", date);
    goodbye_size = sprintf(goodbye, HEAD "Connection: close\r\nContent-Length: 13\r\n\r\nHello, world!", date);
    int head = sprintf(large, HEAD "Content-Length: %d\r\n\r\n", date, LARGE);
    memset(large + head, 'x', LARGE);
    large_size = head + LARGE;
}

/* Answers of one batch, so that pipelined requests cost one send. */
static char batch[2 * BUFFER + LARGE];
static size_t batched;

static void flush(struct connection *c) {
    if (batched) emit(c, batch, batched);
    batched = 0;
}

static void add(struct connection *c, const char *data, size_t size) {
    if (batched + size > sizeof batch) flush(c);
    memcpy(batch + batched, data, size);
    batched += size;
}

static void stream(struct connection *c) {
    static char block[CHUNK + 16];
    char head[512];
    int size = sprintf(head, HEAD "Transfer-Encoding: chunked\r\n\r\n", date);
    int mark = sprintf(block, "%x\r\n", CHUNK);
    memset(block + mark, 'x', CHUNK);
    memcpy(block + mark + CHUNK, "\r\n", 2);
    add(c, head, size);
    for (int i = 0; i < CHUNKS; i++) {
        add(c, block, mark + CHUNK + 2);
        flush(c);
    }
    add(c, "0\r\n\r\n", 5);
}

static void uploaded(struct connection *c, size_t body) {
    char text[32], answer[512];
    int size = sprintf(text, "%zu", body);
    add(c, answer, sprintf(answer, HEAD "Content-Length: %d\r\n\r\n%s", date, size, text));
}

/* One whole head. Sets the length of its body; returns 0 if the path is not one of ours. */
static int request(struct connection *c, struct reading *r, char *head, char *end, int alone) {
    char *path = memchr(head, ' ', end - head);
    if (!path) return 0;
    path++;
    for (char *line = memchr(path, '\n', end - path); line && line < end; line = memchr(line + 1, '\n', end - line - 1)) {
        if ((line[1] | 32) != 'c') continue;
        if (!strncasecmp(line + 1, "Content-Length:", 15)) r->body = r->left = strtoul(line + 16, NULL, 10);
        else if (!strncasecmp(line + 1, "Connection: close", 17)) r->closing = 1;
    }
    if (!strncmp(path, "/ ", 2) && r->closing) add(c, goodbye, goodbye_size);
    else if (!strncmp(path, "/ ", 2)) alone ? emit(c, hello, hello_size) : add(c, hello, hello_size);
    else if (!strncmp(path, "/64k ", 5)) alone ? emit(c, large, large_size) : add(c, large, large_size);
    else if (!strncmp(path, "/stream ", 8)) stream(c);
    else if (strncmp(path, "/upload ", 8)) return 0;
    else if (!r->left) uploaded(c, 0);
    return 1;
}

/* The requests in these bytes; returns 0 when the connection must be given up. */
static int requests(struct connection *c, struct reading *r, char *data, size_t size) {
    char *end = data + size, *stop;
    while (data < end && !r->closing) {
        if (r->left) {
            size_t part = r->left < (size_t)(end - data) ? r->left : (size_t)(end - data);
            data += part;
            if (!(r->left -= part)) uploaded(c, r->body);
            continue;
        }
        if (!(stop = memmem(data, end - data, "\r\n\r\n", 4))) break;
        *stop = 0; /* strtoul and strncmp end here */
        if (!request(c, r, data, stop, stop + 4 == end && !batched)) return 0;
        data = stop + 4;
    }
    flush(c);
    if (r->closing || data == end) return 1;
    if (end - data > BUFFER / 2 || !(r->held = malloc(BUFFER))) return 0;
    memcpy(r->held, data, r->kept = end - data);
    return 1;
}

/* Bytes that have come: with what was held before, if anything was. */
static int received(struct connection *c, struct reading *r, char *data, size_t size) {
    if (echo) {
        emit(c, data, size);
        return 1;
    }
    if (!r->held) return requests(c, r, data, size);
    static char whole[2 * BUFFER];
    size_t kept = r->kept;
    memcpy(whole, r->held, kept);
    memcpy(whole + kept, data, size);
    free(r->held);
    r->held = NULL;
    r->kept = 0;
    return requests(c, r, whole, kept + size);
}

static int listen_on(int port) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) die("listen");
    return fd;
}
