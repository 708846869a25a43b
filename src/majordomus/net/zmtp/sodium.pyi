problem: str
version: str

def check(library: object) -> str: ...
