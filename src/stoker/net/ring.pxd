# The kernel's side of ring.py: the structures of io_uring(7) and the three system calls, in C.
#
# The layouts are the kernel's ABI (include/uapi/linux/io_uring.h, which never changes them), written out here so that a
# build needs no headers newer than the machine's own. Head and tail of the queues are shared with the kernel, which
# runs on another CPU: who publishes stores with release, who reads the other's index loads with acquire
# (io_uring_setup(2), io_uring_enter(2), "NOTES").

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

cdef extern from *:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    #ifndef MADV_DONTFORK
    #define MADV_DONTFORK 10
    #endif
    enum {  /* the numbers of the calls are the same on every architecture */
        STOKER_SETUP = 425, STOKER_ENTER = 426, STOKER_REGISTER = 427,
        STOKER_REGISTER_PROBE = 8, STOKER_REGISTER_PBUF_RING = 22,
        STOKER_POLL_ADD = 6, STOKER_ACCEPT = 13, STOKER_CANCEL = 14, STOKER_SEND = 26, STOKER_RECV = 27,
        STOKER_BUFFER_SELECT = 1 << 5, STOKER_MULTISHOT_ACCEPT = 1 << 0, STOKER_MULTISHOT_RECV = 1 << 1, STOKER_MULTISHOT_POLL = 1 << 0,
        STOKER_GETEVENTS = 1 << 0, STOKER_EXT_ARG = 1 << 3,
        STOKER_SINGLE_MMAP = 1 << 0, STOKER_NODROP = 1 << 1, STOKER_FEATURE_EXT_ARG = 1 << 8,
        /* CQSIZE, CLAMP, SUBMIT_ALL, SINGLE_ISSUER, DEFER_TASKRUN */
        STOKER_FLAGS = 1 << 3 | 1 << 4 | 1 << 7 | 1 << 12 | 1 << 13
    };
    /* The group of the provided buffers; a ring has one. */
    enum { STOKER_GROUP = 1 };

    typedef struct {
        uint8_t opcode, flags; uint16_t ioprio; int32_t fd;
        uint64_t off, addr; uint32_t len, op_flags; uint64_t user_data;
        uint16_t buf_group, personality; int32_t file_index; uint64_t addr3, pad;
    } stoker_sqe;
    typedef struct { uint64_t user_data; int32_t res; uint32_t flags; } stoker_cqe;
    typedef struct { uint64_t addr; uint32_t len; uint16_t bid, tail; } stoker_buf;  /* [0].tail is the ring's */
    typedef struct { uint64_t ring_addr; uint32_t entries; uint16_t bgid, flags; uint64_t resv[3]; } stoker_buf_reg;
    typedef struct {
        uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, resv1; uint64_t resv2;
    } stoker_sq_offsets;
    typedef struct {
        uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1; uint64_t resv2;
    } stoker_cq_offsets;
    typedef struct {
        uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, resv[3];
        stoker_sq_offsets sq; stoker_cq_offsets cq;
    } stoker_params;
    typedef struct { uint64_t sigmask; uint32_t sigmask_size, min_wait; uint64_t ts; } stoker_wait;
    typedef struct { int64_t seconds, nanoseconds; } stoker_timespec;
    typedef struct { uint8_t last_op, ops_len; uint16_t resv; uint32_t resv2[3]; struct {
        uint8_t op, resv; uint16_t flags; uint32_t resv2; } ops[64]; } stoker_probe;

    typedef struct {
        int fd;
        const char *step;            /* the call that failed */
        uint32_t entries, sq_mask, cq_mask;
        uint32_t *sq_head, *sq_tail, *cq_head, *cq_tail;
        uint32_t tail;               /* of the submissions, as far as written */
        stoker_sqe *sqes; stoker_cqe *cqes; stoker_buf *bufs;
        char *rings, *data;
        size_t rings_size, sqes_size, bufs_size, data_size;
        uint32_t buf_mask, buf_size; uint16_t buf_tail;
    } stoker_ring;

    static inline void *stoker_map(size_t size, int fd, off_t offset) {
        int how = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE;
        void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, how, fd, offset);
        if (at == MAP_FAILED) return NULL;
        madvise(at, size, MADV_DONTFORK);  /* a process that the application forks must not touch the queues */
        return at;
    }

    static inline void stoker_ring_close(stoker_ring *ring) {
        if (!ring->step) return;  /* never opened */
        if (ring->fd >= 0) close(ring->fd);
        ring->fd = -1;
        if (ring->rings) munmap(ring->rings, ring->rings_size);
        if (ring->sqes) munmap(ring->sqes, ring->sqes_size);
        if (ring->bufs) munmap(ring->bufs, ring->bufs_size);
        if (ring->data) munmap(ring->data, ring->data_size);
        ring->rings = ring->data = NULL;
        ring->sqes = NULL;
        ring->bufs = NULL;
    }

    static inline void stoker_ring_recycle(stoker_ring *ring, unsigned id) {
        stoker_buf *buf = &ring->bufs[ring->buf_tail & ring->buf_mask];
        buf->addr = (uint64_t)(uintptr_t)(ring->data + (size_t)id * ring->buf_size);
        buf->len = ring->buf_size;
        buf->bid = (uint16_t)id;
        ring->buf_tail++;
        __atomic_store_n(&ring->bufs[0].tail, ring->buf_tail, __ATOMIC_RELEASE);
    }

    static inline int stoker_ring_lacks(stoker_ring *ring) {
        static const uint8_t needed[] = {
            STOKER_POLL_ADD, STOKER_ACCEPT, STOKER_CANCEL, STOKER_SEND, STOKER_RECV};
        stoker_probe probe;
        memset(&probe, 0, sizeof probe);
        if (syscall(STOKER_REGISTER, ring->fd, STOKER_REGISTER_PROBE, &probe, 64) < 0) return -1;
        for (size_t i = 0; i < sizeof needed; i++)
            if (needed[i] > probe.last_op || !(probe.ops[needed[i]].flags & 1)) { errno = EOPNOTSUPP; return -1; }
        return 0;
    }

    static inline int stoker_ring_map(stoker_ring *ring, stoker_params *params) {
        size_t submissions = params->sq.array + params->sq_entries * sizeof(uint32_t);
        size_t completions = params->cq.cqes + params->cq_entries * sizeof(stoker_cqe);
        ring->rings_size = submissions > completions ? submissions : completions;
        ring->sqes_size = params->sq_entries * sizeof(stoker_sqe);
        ring->rings = stoker_map(ring->rings_size, ring->fd, 0);
        ring->sqes = stoker_map(ring->sqes_size, ring->fd, 0x10000000);
        if (!ring->rings || !ring->sqes) return -1;
        ring->entries = params->sq_entries;
        ring->sq_head = (uint32_t *)(ring->rings + params->sq.head);
        ring->sq_tail = (uint32_t *)(ring->rings + params->sq.tail);
        ring->cq_head = (uint32_t *)(ring->rings + params->cq.head);
        ring->cq_tail = (uint32_t *)(ring->rings + params->cq.tail);
        ring->sq_mask = *(uint32_t *)(ring->rings + params->sq.ring_mask);
        ring->cq_mask = *(uint32_t *)(ring->rings + params->cq.ring_mask);
        ring->cqes = (stoker_cqe *)(ring->rings + params->cq.cqes);
        ring->tail = *ring->sq_tail;
        uint32_t *array = (uint32_t *)(ring->rings + params->sq.array);
        for (uint32_t i = 0; i < params->sq_entries; i++) array[i] = i;
        return 0;
    }

    static inline int stoker_ring_buffers(stoker_ring *ring, unsigned count, unsigned size) {
        stoker_buf_reg reg;
        memset(&reg, 0, sizeof reg);
        ring->bufs_size = count * sizeof(stoker_buf);
        ring->data_size = (size_t)count * size;
        ring->bufs = stoker_map(ring->bufs_size, -1, 0);
        ring->data = stoker_map(ring->data_size, -1, 0);
        if (!ring->bufs || !ring->data) return -1;
        reg.ring_addr = (uint64_t)(uintptr_t)ring->bufs;
        reg.entries = count;
        reg.bgid = STOKER_GROUP;
        ring->step = "io_uring_register(IORING_REGISTER_PBUF_RING)";
        if (syscall(STOKER_REGISTER, ring->fd, STOKER_REGISTER_PBUF_RING, &reg, 1) < 0) return -1;
        ring->buf_mask = count - 1;
        ring->buf_size = size;
        for (unsigned id = 0; id < count; id++) stoker_ring_recycle(ring, id);
        return 0;
    }

    /* 0, or the errno of the call that ring->step names. */
    static inline int stoker_ring_open(stoker_ring *ring, unsigned entries, unsigned completions,
                                unsigned count, unsigned size) {
        const uint32_t features = STOKER_SINGLE_MMAP | STOKER_NODROP | STOKER_FEATURE_EXT_ARG;
        stoker_params params;
        int failed;
        memset(ring, 0, sizeof *ring);
        memset(&params, 0, sizeof params);
        params.flags = STOKER_FLAGS;
        params.cq_entries = completions;
        ring->step = "io_uring_setup";
        ring->fd = (int)syscall(STOKER_SETUP, entries, &params);
        if (ring->fd >= 0) {
            failed = (params.features & features) != features;
            if (failed) errno = EINVAL;
            if (!failed) ring->step = "io_uring_register(IORING_REGISTER_PROBE)", failed = stoker_ring_lacks(ring);
            if (!failed) ring->step = "mmap", failed = stoker_ring_map(ring, &params);
            if (!failed) failed = stoker_ring_buffers(ring, count, size);
            if (!failed) return 0;
        }
        failed = errno;
        stoker_ring_close(ring);
        return failed;
    }

    /* Submit what is written and, with nanoseconds > 0, wait so long for a completion. 0 or an errno. */
    static inline int stoker_ring_enter(stoker_ring *ring, long long nanoseconds) {
        stoker_timespec limit = {nanoseconds / 1000000000, nanoseconds % 1000000000};
        stoker_wait wait = {0, 0, 0, (uint64_t)(uintptr_t)&limit};
        uint32_t submit = ring->tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
        unsigned least = nanoseconds > 0 && *ring->cq_head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE);
        __atomic_store_n(ring->sq_tail, ring->tail, __ATOMIC_RELEASE);
        if (syscall(STOKER_ENTER, ring->fd, submit, least, STOKER_GETEVENTS | STOKER_EXT_ARG, &wait, sizeof wait) < 0)
            return errno;
        return 0;
    }

    /* Submit what is written, and reap nothing. 0 or an errno. */
    static inline int stoker_ring_submit(stoker_ring *ring) {
        uint32_t submit = ring->tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
        __atomic_store_n(ring->sq_tail, ring->tail, __ATOMIC_RELEASE);
        return submit && syscall(STOKER_ENTER, ring->fd, submit, 0, 0, NULL, 0) < 0 ? errno : 0;
    }

    /* CLOCK_MONOTONIC, in seconds, as time.monotonic() has it. */
    static inline double stoker_now(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    }

    /* The next free submission, cleared; NULL if the queue is full. */
    static inline stoker_sqe *stoker_ring_sqe(stoker_ring *ring, int opcode, int fd, uint64_t tag) {
        stoker_sqe *sqe = &ring->sqes[ring->tail & ring->sq_mask];
        if (ring->tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) >= ring->entries) return NULL;
        memset(sqe, 0, sizeof *sqe);
        sqe->opcode = (uint8_t)opcode;
        sqe->fd = fd;
        sqe->user_data = tag;
        ring->tail++;
        return sqe;
    }

    static inline int stoker_ring_recv(stoker_ring *ring, int fd, uint64_t tag, int many) {
        stoker_sqe *sqe = stoker_ring_sqe(ring, STOKER_RECV, fd, tag);
        if (!sqe) return 0;
        sqe->flags = STOKER_BUFFER_SELECT;
        sqe->buf_group = STOKER_GROUP;
        sqe->ioprio = many ? STOKER_MULTISHOT_RECV : 0;
        return 1;
    }

    static inline int stoker_ring_send(stoker_ring *ring, int fd, uint64_t tag, const char *data, size_t size) {
        stoker_sqe *sqe = stoker_ring_sqe(ring, STOKER_SEND, fd, tag);
        if (!sqe) return 0;
        sqe->addr = (uint64_t)(uintptr_t)data;
        sqe->len = size > 1 << 30 ? 1 << 30 : (uint32_t)size;
        sqe->op_flags = MSG_NOSIGNAL;
        return 1;
    }

    static inline int stoker_ring_poll(stoker_ring *ring, int fd, uint64_t tag, unsigned events, int many) {
        stoker_sqe *sqe = stoker_ring_sqe(ring, STOKER_POLL_ADD, fd, tag);
        if (!sqe) return 0;
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        events = events << 16 | events >> 16;  /* the kernel keeps two halves in the order of little-endian machines */
    #endif
        sqe->op_flags = events;
        sqe->len = many ? STOKER_MULTISHOT_POLL : 0;
        return 1;
    }

    static inline int stoker_ring_accept(stoker_ring *ring, int fd, uint64_t tag) {
        stoker_sqe *sqe = stoker_ring_sqe(ring, STOKER_ACCEPT, fd, tag);
        if (!sqe) return 0;
        sqe->ioprio = STOKER_MULTISHOT_ACCEPT;
        sqe->op_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
        return 1;
    }

    static inline int stoker_ring_cancel(stoker_ring *ring, uint64_t target, uint64_t tag) {
        stoker_sqe *sqe = stoker_ring_sqe(ring, STOKER_CANCEL, -1, tag);
        if (!sqe) return 0;
        sqe->addr = target;
        return 1;
    }

    static inline unsigned stoker_ring_ready(stoker_ring *ring) {
        return __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE) - *ring->cq_head;
    }

    /* The oldest completion, taken out of the queue. There must be one. */
    static inline stoker_cqe stoker_ring_next(stoker_ring *ring) {
        stoker_cqe cqe = ring->cqes[*ring->cq_head & ring->cq_mask];
        __atomic_store_n(ring->cq_head, *ring->cq_head + 1, __ATOMIC_RELEASE);
        return cqe;
    }

    static inline const char *stoker_ring_data(stoker_ring *ring, unsigned flags) {
        return ring->data + (size_t)(flags >> 16) * ring->buf_size;
    }
    """
    ctypedef struct stoker_cqe:
        unsigned long long user_data
        int res
        unsigned flags
    ctypedef struct stoker_ring:
        int fd
        const char *step
    int stoker_ring_open(stoker_ring *ring, unsigned entries, unsigned completions, unsigned count, unsigned size)
    void stoker_ring_close(stoker_ring *ring)
    int stoker_ring_enter(stoker_ring *ring, long long nanoseconds) nogil
    int stoker_ring_submit(stoker_ring *ring)
    double stoker_now()
    bint stoker_ring_recv(stoker_ring *ring, int fd, unsigned long long tag, bint many)
    bint stoker_ring_send(stoker_ring *ring, int fd, unsigned long long tag, const char *data, size_t size)
    bint stoker_ring_poll(stoker_ring *ring, int fd, unsigned long long tag, unsigned events, bint many)
    bint stoker_ring_accept(stoker_ring *ring, int fd, unsigned long long tag)
    bint stoker_ring_cancel(stoker_ring *ring, unsigned long long target, unsigned long long tag)
    unsigned stoker_ring_ready(stoker_ring *ring)
    stoker_cqe stoker_ring_next(stoker_ring *ring)
    void stoker_ring_recycle(stoker_ring *ring, unsigned id)
    const char *stoker_ring_data(stoker_ring *ring, unsigned flags)


cdef class Ring:
    cdef stoker_ring _ring
    cdef public unsigned long long tag
    cdef public int result
    cdef public unsigned flags

    cpdef enter(self, double timeout)
    cpdef submit(self)
    cpdef hurry(self, double since)
    cpdef recv(self, int fd, unsigned long long tag, bint many)
    cpdef send(self, int fd, unsigned long long tag, bytes data, Py_ssize_t offset)
    cpdef poll(self, int fd, unsigned long long tag, unsigned events, bint many)
    cpdef accept(self, int fd, unsigned long long tag)
    cpdef cancel(self, unsigned long long target, unsigned long long tag)
    cpdef unsigned ready(self)
    cpdef next(self)
    cpdef bytes data(self)
    cpdef recycle(self)
