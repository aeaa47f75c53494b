"""Specs of all shapes, for tests that must hold for any of them."""

from hypothesis import strategies as st

from hpcburst.envs.specs.spec import Archive, EnvSpec

PLATFORM = "linux-64"
VIRTUAL = ("__unix=0=0", "__glibc=2.17=0")

words = st.from_regex(r"[a-z]([a-z0-9_]{0,7}[a-z0-9])?", fullmatch=True)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
dependencies = st.builds("{} {}".format, words, st.sampled_from([">=1", "2.*", "=3.1", "1|2"]))
requirements = st.builds(
    "{}{}".format, words, st.sampled_from(["", ">=1", "==2.0", "[extra]~=3.1"])
)
options = st.builds("--extra-index-url https://{}/simple".format, words)
archives = st.builds(
    Archive,
    url=st.builds("https://h/linux-64/{}-1-0.conda".format, words),
    sha256=digests,
    depends=st.lists(dependencies, max_size=2).map(tuple),
    size=st.integers(0, 10**9),
)


def tuples(of, least=0):
    return st.lists(of, min_size=least, max_size=4, unique=True).map(tuple)


specs = st.builds(
    EnvSpec,
    channels=tuples(words, 1),
    conda=tuples(dependencies),
    pip=st.builds(lambda a, b: a + b, tuples(options), tuples(requirements)),
    variables=st.dictionaries(words.map(str.upper), st.text(max_size=5), max_size=3),
    explicit=tuples(archives),
    modules=tuples(words),
)
