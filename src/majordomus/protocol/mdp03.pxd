cpdef tuple parse(header)
cpdef bytes pack(
    command, flags=*, code=*, id=*, ttl=*, bytes service=*, bytes address=*, bytes metadata=*
)
