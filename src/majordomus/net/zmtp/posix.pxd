# cython: language_level=3
"""Declarations of the POSIX and epoll functions that our own ZMTP calls."""

from libc.stdint cimport uint32_t

cdef extern from "sys/epoll.h" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "sys/uio.h" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SHUT_WR
        SHUT_RDWR
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
        SO_PEERCRED
        AF_UNIX
        AF_INET
        AF_INET6
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct ucred:
        int pid
        unsigned int uid
        unsigned int gid
    cdef struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    ssize_t recv(int fd, void* buf, size_t len, int flags)
    ssize_t send(int fd, const void* buf, size_t len, int flags)
    ssize_t sendmsg(int fd, const msghdr* msg, int flags)
    int accept4(int fd, sockaddr* addr, socklen_t* addrlen, int flags)
    int getsockopt(int fd, int level, int optname, void* optval, socklen_t* optlen)
    int getsockname(int fd, sockaddr* address, socklen_t* size)
    int getpeername(int fd, sockaddr* address, socklen_t* size)
    int shutdown(int fd, int how)

cdef extern from "netinet/in.h" nogil:
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        in_addr sin_addr
    cdef struct sockaddr_in6:
        in6_addr sin6_addr

cdef extern from "arpa/inet.h" nogil:
    const char* inet_ntop(int af, const void* src, char* dst, socklen_t size)

cdef extern from "unistd.h" nogil:
    int close(int fd)

cdef extern from "linux/sockios.h" nogil:
    enum:
        SIOCOUTQ

cdef extern from "sys/ioctl.h" nogil:
    int ioctl(int fd, unsigned long request, ...)
