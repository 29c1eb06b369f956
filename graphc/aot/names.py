"""Names that may stand in C: what a library exports, and the fields of its arguments.

In:   the name of a graph, an input or an output (`neuron`, `params.w`, `out.0`).
Out:  a C identifier (`neuron`, `params_w`, `out_0`).
Invariant: a name that C, C++ or the standard library has taken is an error that says what to do,
and nothing but letters, digits and underscores ever reaches a header or a symbol table.

>>> field_name("params.w", "input")
'params_w'
>>> exported_name("exp")  # doctest: +ELLIPSIS
Traceback (most recent call last):
graphc.errors.CompileError: 'exp' cannot be exported: the C library has such a function; ...
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from graphc.errors import CompileError

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")

KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm atomic_cancel atomic_commit atomic_noexcept auto bitand bitor
    bool break case catch char char8_t char16_t char32_t class co_await co_return co_yield compl
    concept const const_cast consteval constexpr constinit continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto if inline int
    long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected
    public register reinterpret_cast requires restrict return short signed sizeof static
    static_assert static_cast struct switch template this thread_local throw true try typedef typeid
    typename typeof typeof_unqual union unsigned using virtual void volatile wchar_t while xor
    xor_eq assert errno linux stderr stdin stdout unix EOF INFINITY NAN NULL
    """.split()
)  # C23 and C++26, with what is a macro almost everywhere

_MATH = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 exp10 expm1
    fabs fdim floor fma fmax fmin fmod frexp hypot ilogb j0 j1 jn ldexp lgamma llrint llround log
    log10 log1p log2 logb lrint lround modf nan nearbyint nextafter nexttoward pow pow10 remainder
    remquo rint round roundeven scalb scalbln scalbn significand sin sincos sinh sqrt tan tanh
    tgamma trunc y0 y1 yn gamma drem finite isinf isnan
""".split()
_COMPLEX = """
    cabs cacos cacosh carg casin casinh catan catanh ccos ccosh cexp cimag clog conj cpow cproj
    creal csin csinh csqrt ctan ctanh
""".split()
_STANDARD = """
    abort abs accept access alarm aligned_alloc alloca asctime at_quick_exit atexit atof atoi atol
    atoll basename bcmp bcopy bind brk bsearch bzero calloc chdir chmod chown chroot clearerr clock
    close closedir connect creat ctime daemon difftime dirname div dlclose dlerror dlopen dlsym dup
    dup2 environ err errx execl execle execlp execv execve execvp exit fchdir fchmod fchown fclose
    fcntl fdatasync fdopen feclearexcept feof ferror fflush ffs fgetc fgetpos fgets fileno flock
    fopen fork fprintf fputc fputs fread free freopen fscanf fseek fsetpos fstat fsync ftell ftok
    ftruncate fwrite getc getchar getcwd getenv getgid gethostname getline getopt getpid getppid
    gets getuid getw gmtime index inet_addr initstate ioctl isalnum isalpha isascii isatty isblank
    iscntrl isdigit isgraph islower isprint ispunct isspace isupper isxdigit kill labs lchown ldiv
    link listen llabs lldiv localtime lockf longjmp lseek lstat main malloc mblen mbstowcs mbtowc
    memchr memcmp memcpy memmem memmove memset mincore mkdir mkfifo mknod mkstemp mktemp mktime
    mlock mmap mount mprotect mremap msync munlock munmap nanosleep nice open opendir optarg optind
    pathconf pause perror pipe poll popen posix_memalign pread printf psignal ptrace putc putchar
    putenv puts putw pwrite qsort quick_exit raise rand rand_r random read readdir readlink readv
    realloc realpath recv reboot remove rename rewind rexec rindex rmdir sbrk scanf select send
    setbuf setenv setgid setjmp setlocale setpgid setsid setstate setuid setvbuf shutdown sigaction
    sigmask signal sleep snprintf socket sprintf srand srandom sscanf stat stime stpcpy strcat
    strchr strcmp strcoll strcpy strcspn strdup strerror strftime strlen strncat strncmp strncpy
    strpbrk strrchr strsep strspn strstr strtod strtof strtok strtol strtold strtoll strtoul
    strtoull strxfrm swab symlink sync syscall sysconf system tcgetattr tempnam time times tmpfile
    tmpnam toascii tolower toupper truncate tsearch ttyname tzset ualarm umask uname ungetc unlink
    usleep utime vfork vfprintf vprintf vscanf vsnprintf vsprintf wait waitpid warn wcslen wcstombs
    wctomb write writev
""".split()
LIBRARY = frozenset([*_STANDARD, *(f"{n}{s}" for n in (*_MATH, *_COMPLEX) for s in ("", "f", "l"))])
TYPES = re.compile(
    r"u?int(_fast|_least)?\d+_t|u?int(max|ptr)_t|s?size_t|ptrdiff_t|max_align_t|\w+_MAX|\w+_MIN"
)


def exported_name(name: str) -> str:
    """A graph's name, if a library may export it."""
    _check(name, "exported")
    if name in LIBRARY:
        raise CompileError(
            f"{name!r} cannot be exported: the C library has such a function; choose another name"
        )
    return name


def field_name(name: str, what: str) -> str:
    """The name of a field; the parts of a tree are joined by underscores."""
    name = name.replace(".", "_")
    _check(name, f"the name of an {what} in C")
    return name


def _check(name: str, what: str) -> None:
    shown = name if len(name) < 80 else f"{name[:60]}... ({len(name)} characters)"
    if not IDENTIFIER.fullmatch(name):
        raise CompileError(
            f"{shown!r} cannot be {what}: "
            "use at most 63 letters, digits and underscores, a letter first"
        )
    if name in KEYWORDS or TYPES.fullmatch(name):
        raise CompileError(
            f"{shown!r} cannot be {what}: it means something else in C or C++; choose another name"
        )


def check_distinct(names: Iterable[tuple[str, str]]) -> None:
    """Fields of one structure: (name in C, what it stands for)."""
    seen: dict[str, str] = {}
    for name, what in names:
        if name in seen:
            raise CompileError(
                f"{seen[name]} and {what} would both be the field {name!r} in C: rename one of them"
            )
        seen[name] = what
