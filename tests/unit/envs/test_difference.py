"""Why two specs do not share an env: every cause is told, in words that name it."""

import pytest
from hypothesis import given

from hpcburst.envs.specs.difference import explain
from hpcburst.envs.specs.spec import Archive, EnvSpec
from support.specs import PLATFORM, VIRTUAL, specs

HERE = ("a.yml", "b.yml")


def test_specs_that_share_an_env_are_told_so():
    """Equal keys are said to be equal, with what plays no role."""
    one = EnvSpec(channels=("c",), conda=("a", "b >=1"))
    other = EnvSpec(channels=("c",), conda=("b >=1", "a"))
    said = explain(one, other, HERE, ((PLATFORM, VIRTUAL), (PLATFORM, VIRTUAL)))
    assert said[0] == f"both share one env, with the key {one.key(PLATFORM, VIRTUAL)}"
    assert "order of dependencies" in said[1]


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            EnvSpec(channels=("a", "b")), EnvSpec(channels=("b", "a")),
            "the channels come in another order: 'a' in a.yml, 'b' in b.yml",
        ),
        (
            EnvSpec(channels=("a", "b")), EnvSpec(channels=("a",)),
            "the channel b is in a.yml and not in b.yml",
        ),
        (
            EnvSpec(channels=("https://u:one@h/c",)), EnvSpec(channels=("https://u:two@h/c",)),
            "the channels differ in a password or token only",
        ),
        (
            EnvSpec(conda=("numpy >=2", "x")), EnvSpec(conda=("numpy >=2.1", "x")),
            "conda asks for numpy differently: 'numpy >=2' in a.yml, 'numpy >=2.1' in b.yml",
        ),
        (
            EnvSpec(conda=("x",)), EnvSpec(conda=("x", "scipy 1.*")),
            "the conda dependency scipy is in b.yml and not in a.yml",
        ),
        (
            EnvSpec(pip=("Rich==1",)), EnvSpec(pip=("rich==2",)),
            "pip asks for rich differently: 'Rich==1' in a.yml, 'rich==2' in b.yml",
        ),
        (
            EnvSpec(pip=("--extra-index-url https://a", "--extra-index-url https://b")),
            EnvSpec(pip=("--extra-index-url https://b", "--extra-index-url https://a")),
            "the options of the pip section come in another order",
        ),
        (
            EnvSpec(variables={"A": "1"}), EnvSpec(variables={"A": "2"}),
            "the variable A differs: '1' in a.yml, '2' in b.yml",
        ),
        (
            EnvSpec(variables={"API_TOKEN": "one"}), EnvSpec(variables={"API_TOKEN": "two"}),
            "the variable API_TOKEN differs",
        ),
        (
            EnvSpec(modules=("gcc", "cuda")), EnvSpec(modules=("cuda", "gcc")),
            "the modules are loaded in another order: 'gcc cuda' in a.yml, 'cuda gcc' in b.yml",
        ),
        (
            EnvSpec(modules=("gcc/13",)), EnvSpec(),
            "the module gcc/13 is in a.yml and not in b.yml",
        ),
        (
            EnvSpec(explicit=(Archive("https://h/linux-64/numpy-2.0-py_0.conda"),)),
            EnvSpec(explicit=(Archive("https://h/linux-64/numpy-2.1-py_0.conda"),)),
            "the locks hold different numpy: '2.0 py_0' in a.yml, '2.1 py_0' in b.yml",
        ),
        (
            EnvSpec(explicit=(Archive("https://h/linux-64/numpy-2.0-py_0.conda", "a" * 64),)),
            EnvSpec(explicit=(Archive("https://h/linux-64/numpy-2.0-py_0.conda", "b" * 64),)),
            "numpy 2.0 py_0 has another digest, though its URL is the same",
        ),
        (
            EnvSpec(explicit=(Archive("https://h/linux-64/numpy-2.0-py_0.conda"),)),
            EnvSpec(explicit=(Archive("https://m/linux-64/numpy-2.0-py_0.conda"),)),
            "numpy 2.0 py_0 comes from elsewhere: 'https://h/linux-64/numpy-2.0-py_0.conda' in a.yml, 'https://m/linux-64/numpy-2.0-py_0.conda' in b.yml",  # noqa: E501 - one sentence
        ),
        (
            EnvSpec(explicit=(Archive("https://h/linux-64/numpy-2.0-py_0.conda"),)),
            EnvSpec(channels=("c",), conda=("numpy",)),
            "a.yml is a lock of 1 archives, and b.yml is solved anew: even the same packages make two envs",  # noqa: E501 - one sentence
        ),
    ],
)  # fmt: skip
def test_a_single_difference_is_named(one, other, said):
    """One cause gives one sentence, which says what is where."""
    assert explain(one, other, HERE) == (said,)


def test_the_machines_differ():
    """The same spec for two machines: the platform or the virtual package is named."""
    spec = EnvSpec(conda=("x",))
    assert explain(spec, spec, HERE, ((PLATFORM, ()), ("linux-aarch64", ()))) == (
        "the platforms differ: 'linux-64' in a.yml, 'linux-aarch64' in b.yml",
    )
    machines = ((PLATFORM, ["__linux=5=0"]), (PLATFORM, ["__linux=6=0", "__cuda=12=0"]))
    assert explain(spec, spec, HERE, machines) == (
        "what the machine offers, __cuda=12=0 is in b.yml and not in a.yml",
    )


def test_many_differences_stay_readable():
    """Hundreds of packages that differ give a few sentences and a count."""
    one = EnvSpec(conda=tuple(f"p{i} 1" for i in range(300)) + tuple(f"q{i}" for i in range(300)))
    other = EnvSpec(conda=tuple(f"p{i} 2" for i in range(300)))
    said = explain(one, other, HERE)
    assert len(said) == 8
    assert said[6] == "and 294 more of that kind"
    assert "and 294 more is in a.yml" in said[7]


@given(specs, specs)
def test_there_is_always_a_cause(one, other):
    """Two specs are said to share an env if and only if they have one key."""
    said = explain(one, other, HERE)
    assert said
    assert said[0].startswith("both share one env") == (one.key("", ()) == other.key("", ()))


def test_no_secret_is_told():
    """Passwords in URLs are blotted out, wherever they differ."""
    url = "https://u:hunter2@h/c/linux-64/a-1-0.conda"
    one = EnvSpec(channels=("https://u:hunter2@h/c",), explicit=(Archive(url),))
    other = EnvSpec(explicit=(Archive("https://h/c/linux-64/a-1-0.conda"),))
    assert "hunter2" not in " ".join(explain(one, other, HERE))
