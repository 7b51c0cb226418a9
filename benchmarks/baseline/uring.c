/* The reference on io_uring, by raw system calls: one process, one thread. `uring PORT [--echo]`
 *
 * Multishot accept, multishot recv from a ring of provided buffers, one send in flight for a connection; what is queued is
 * submitted by the io_uring_enter(2) that waits.
 */
#include "common.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { ENTRIES = 4096, COMPLETIONS = 65536, BUFFERS = 1024, SIZE = 16384, GROUP = 1 };
enum { ACCEPT, RECV, SEND }; /* the low bits of user_data; the rest is the connection */

struct piece { /* one send */
    struct piece *next;
    size_t size, sent;
    char data[];
};

struct connection {
    int fd, receiving, ended; /* ended: close it as soon as nothing is under way */
    struct reading reading;
    struct piece *first, *last;
    struct connection *resting; /* in the list of those whose recv found no buffer */
};

static int ring, listener;
static unsigned *sq_head, *sq_tail, *sq_array, *cq_head, *cq_tail, sq_mask, cq_mask, tail, submitted;
static struct io_uring_sqe *entries;
static struct io_uring_cqe *completions;
static struct io_uring_buf_ring *provided;
static char *pool;
static unsigned short given;
static struct connection *hungry;

static void enter(unsigned wait) {
    unsigned count = tail - submitted;
    __atomic_store_n(sq_tail, tail, __ATOMIC_RELEASE);
    int n = syscall(__NR_io_uring_enter, ring, count, wait, IORING_ENTER_GETEVENTS, NULL, 0);
    if (n >= 0) submitted += n;
    else if (errno != EINTR && errno != EAGAIN && errno != EBUSY) die("io_uring_enter");
}

static struct io_uring_sqe *entry(int opcode, int fd, struct connection *c, int kind) {
    while (tail - __atomic_load_n(sq_head, __ATOMIC_ACQUIRE) == ENTRIES) enter(0);
    struct io_uring_sqe *e = entries + (tail & sq_mask);
    sq_array[tail & sq_mask] = tail & sq_mask;
    tail++;
    memset(e, 0, sizeof *e);
    e->opcode = opcode;
    e->fd = fd;
    e->user_data = (unsigned long)c | kind;
    return e;
}

static void receive(struct connection *c) {
    struct io_uring_sqe *e = entry(IORING_OP_RECV, c->fd, c, RECV);
    e->ioprio = IORING_RECV_MULTISHOT;
    e->flags = IOSQE_BUFFER_SELECT;
    e->buf_group = GROUP;
    c->receiving = 1;
}

static void accepting(void) {
    struct io_uring_sqe *e = entry(IORING_OP_ACCEPT, listener, NULL, ACCEPT);
    e->ioprio = IORING_ACCEPT_MULTISHOT;
    e->accept_flags = SOCK_CLOEXEC;
}

static void send_first(struct connection *c) {
    struct io_uring_sqe *e = entry(IORING_OP_SEND, c->fd, c, SEND);
    e->addr = (unsigned long)(c->first->data + c->first->sent);
    e->len = c->first->size - c->first->sent;
    e->msg_flags = MSG_WAITALL | MSG_NOSIGNAL;
}

static void emit(struct connection *c, const char *data, size_t size) {
    struct piece *p = malloc(sizeof *p + size);
    if (!p) die("malloc");
    *p = (struct piece){.size = size};
    memcpy(p->data, data, size);
    if (c->first) c->last->next = p;
    else c->first = p;
    c->last = p;
    if (c->first == p) send_first(c);
}

static void give(unsigned short id) {
    struct io_uring_buf *b = provided->bufs + (given & (BUFFERS - 1));
    b->addr = (unsigned long)(pool + (size_t)id * SIZE);
    b->len = SIZE;
    b->bid = id;
    __atomic_store_n(&provided->tail, ++given, __ATOMIC_RELEASE);
}

/* The last answer is out, or the peer is gone: ends what is under way, then frees. */
static void finish(struct connection *c) {
    if (!c->ended) {
        c->ended = 1;
        if (c->receiving) shutdown(c->fd, SHUT_RDWR);
    }
    if (c->receiving || c->first) return;
    close(c->fd);
    free(c->reading.held);
    free(c);
}

static void accepted(struct io_uring_cqe *q) {
    if (q->res >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = q->res;
        receive(c);
    }
    if (!(q->flags & IORING_CQE_F_MORE)) accepting();
}

static void got(struct connection *c, struct io_uring_cqe *q) {
    int good = q->res > 0;
    if (q->flags & IORING_CQE_F_BUFFER) {
        unsigned short id = q->flags >> IORING_CQE_BUFFER_SHIFT;
        if (good && !c->ended && !c->reading.closing)
            good = received(c, &c->reading, pool + (size_t)id * SIZE, q->res);
        give(id);
    }
    c->receiving = !!(q->flags & IORING_CQE_F_MORE);
    if (q->res == -ENOBUFS) {
        c->resting = hungry;
        hungry = c;
        c->receiving = 1;
    } else if (!good || c->ended || (c->reading.closing && !c->first)) finish(c);
    else if (!c->receiving) receive(c);
}

static void sent(struct connection *c, struct io_uring_cqe *q) {
    struct piece *p = c->first;
    if (q->res > 0 && (p->sent += q->res) < p->size) {
        send_first(c);
        return;
    }
    c->first = p->next;
    free(p);
    if (q->res < 0)
        while ((p = c->first)) {
            c->first = p->next;
            free(p);
        }
    if (c->first) send_first(c);
    else if (q->res < 0 || c->ended || c->reading.closing) finish(c);
}

static void *map(size_t size, unsigned long offset) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
    if (p == MAP_FAILED) die("mmap");
    return p;
}

static void make_ring(void) {
    struct io_uring_params p = {.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                                .cq_entries = COMPLETIONS};
    if ((ring = syscall(__NR_io_uring_setup, ENTRIES, &p)) < 0) die("io_uring_setup");
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned), cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    char *shared = map(sq > cq ? sq : cq, IORING_OFF_SQ_RING);
    sq_head = (unsigned *)(shared + p.sq_off.head);
    sq_tail = (unsigned *)(shared + p.sq_off.tail);
    sq_mask = *(unsigned *)(shared + p.sq_off.ring_mask);
    sq_array = (unsigned *)(shared + p.sq_off.array);
    cq_head = (unsigned *)(shared + p.cq_off.head);
    cq_tail = (unsigned *)(shared + p.cq_off.tail);
    cq_mask = *(unsigned *)(shared + p.cq_off.ring_mask);
    completions = (struct io_uring_cqe *)(shared + p.cq_off.cqes);
    entries = map(p.sq_entries * sizeof *entries, IORING_OFF_SQES);
    provided = mmap(NULL, BUFFERS * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    pool = malloc((size_t)BUFFERS * SIZE);
    if (provided == MAP_FAILED || !pool) die("no memory for buffers");
    struct io_uring_buf_reg reg = {.ring_addr = (unsigned long)provided, .ring_entries = BUFFERS, .bgid = GROUP};
    if (syscall(__NR_io_uring_register, ring, IORING_REGISTER_PBUF_RING, &reg, 1)) die("IORING_REGISTER_PBUF_RING");
    for (unsigned i = 0; i < BUFFERS; i++) give(i);
}

int main(int count, char **words) {
    if (count < 2) return fprintf(stderr, "usage: uring PORT [--echo]\n"), 2;
    for (int i = 2; i < count; i++) {
        if (!strcmp(words[i], "--echo")) echo = 1;
        else return fprintf(stderr, "uring: unknown option %s\n", words[i]), 2;
    }
    listener = listen_on(atoi(words[1]));
    make_ring();
    accepting();
    for (;;) {
        enter(1);
        tick();
        unsigned head = *cq_head, end = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);
        for (; head != end; head++) {
            struct io_uring_cqe q = completions[head & cq_mask];
            struct connection *c = (struct connection *)(unsigned long)(q.user_data & ~7UL);
            int kind = q.user_data & 7;
            if (kind == ACCEPT) accepted(&q);
            else if (kind == RECV) got(c, &q);
            else sent(c, &q);
        }
        __atomic_store_n(cq_head, head, __ATOMIC_RELEASE);
        while (hungry) { /* buffers have come back by now */
            struct connection *c = hungry;
            hungry = c->resting;
            if (c->ended) {
                c->receiving = 0;
                finish(c);
            } else receive(c);
        }
    }
}
