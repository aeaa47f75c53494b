"""Every kind of file that says what an env holds: what is taken from it, and what is refused."""

import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcburst.envs.specs.formats import (
    conda_lock,
    environment_yml,
    explicit,
    pixi_project,
    rattler_lock,
    yaml_text,
)
from hpcburst.envs.specs.formats.source import Source
from hpcburst.envs.specs.reading import read_spec, this_platform
from hpcburst.envs.specs.spec import Archive, EnvSpec
from hpcburst.errors import EnvError

FORGE = "https://conda.anaconda.org/conda-forge"
PYPI = "https://files.pythonhosted.org/packages/00"
SHA, MD5, COMMIT = "ab" * 32, "cd" * 16, "ef" * 20

NUMPY = f"{FORGE}/linux-64/numpy-2.1.0-py313_0.conda"
TZDATA = f"{FORGE}/noarch/tzdata-2024b-hc8b5060_0.conda"
WHEEL = f"{PYPI}/rich-13.9.4-py3-none-any.whl"


class Kind(NamedTuple):
    """One kind of spec: the file's name and text, what it means, and what else is needed."""

    file: str
    text: str
    spec: EnvSpec
    environment: str = ""
    beside: dict[str, str] = {}  # noqa: RUF012 - never changed


ENVIRONMENT_YML = Kind(
    "environment.yml",
    """
name: stats
channels: [bioconda, conda-forge]
dependencies:
  - python 3.12.*
  - numpy >=2
  - pip:
      - rich==13.9.4
variables: {OMP_NUM_THREADS: 010, MODE: 1.50}
modules:
  - gcc/13
  - cuda/12.4
""",
    EnvSpec(
        channels=("bioconda", "conda-forge"),
        conda=("python 3.12.*", "numpy >=2"),
        pip=("rich==13.9.4",),
        variables={"OMP_NUM_THREADS": "010", "MODE": "1.50"},
        modules=("gcc/13", "cuda/12.4"),
    ),
)

ONLY_MODULES = Kind("env.yaml", "modules: [R/4.3.2]\n", EnvSpec(modules=("R/4.3.2",)))

EXPLICIT = Kind(
    "pin.txt",
    f"""# This file may be used to create an environment using:
# platform: linux-64
@EXPLICIT
{NUMPY}#{MD5}
{TZDATA}#sha256:{SHA}
{FORGE}/linux-64/xz-5.2.6-h166bdaf_0.tar.bz2#{SHA}
file:///chan/noarch/six-1.16.0-pyh6c4a22f_0.conda
""",
    EnvSpec(
        explicit=(
            Archive(NUMPY, md5=MD5),
            Archive(TZDATA, sha256=SHA),
            Archive(f"{FORGE}/linux-64/xz-5.2.6-h166bdaf_0.tar.bz2", sha256=SHA),
            Archive("file:///chan/noarch/six-1.16.0-pyh6c4a22f_0.conda"),
        )
    ),
)

CONDA_LOCK_TEXT = f"""
version: 1
metadata:
  content_hash: {{linux-64: {SHA}, osx-arm64: {SHA}}}
  channels: [{{url: conda-forge, used_env_vars: []}}]
  platforms: [linux-64, osx-arm64]
  sources: [environment.yml]
package:
- name: numpy
  version: 2.1.0
  manager: conda
  platform: linux-64
  dependencies: {{python: '>=3.13,<3.14.0a0', libblas: '', hdf5: '>=1.12 mpi_*'}}
  url: {NUMPY}
  hash: {{md5: {MD5}, sha256: {SHA}}}
  category: main
  optional: false
- name: numpy
  version: 2.1.0
  manager: conda
  platform: osx-arm64
  dependencies: {{}}
  url: {FORGE}/osx-arm64/numpy-2.1.0-py313_0.conda
  hash: {{md5: {MD5}}}
  category: main
  optional: false
- name: tzdata
  version: 2024b
  manager: conda
  platform: linux-64
  dependencies: {{}}
  url: {TZDATA}
  hash: {{md5: {"1" * 32}}}
  category: dev
  optional: true
- name: rich
  version: 13.9.4
  manager: pip
  platform: linux-64
  dependencies: {{pygments: '>=2.13'}}
  url: {WHEEL}
  hash: {{sha256: {SHA}}}
  category: main
  optional: false
"""
LOCKED_NUMPY = Archive(NUMPY, SHA, MD5, ("python >=3.13,<3.14.0a0", "libblas", "hdf5 >=1.12 mpi_*"))
LOCKED_RICH = f"rich @ {WHEEL}#sha256={SHA}"

CONDA_LOCK = Kind(
    "conda-lock.yml", CONDA_LOCK_TEXT, EnvSpec(explicit=(LOCKED_NUMPY,), pip=(LOCKED_RICH,))
)
CONDA_LOCK_DEV = Kind(
    "conda-lock.yml",
    CONDA_LOCK_TEXT,
    EnvSpec(explicit=(LOCKED_NUMPY, Archive(TZDATA, md5="1" * 32)), pip=(LOCKED_RICH,)),
    environment="dev",
)

RATTLER_NUMPY = Archive(NUMPY, SHA, MD5, ("python >=3.13,<3.14.0a0", "__glibc >=2.17"), 8123456)
RATTLER_ARCHIVES = (RATTLER_NUMPY, Archive(TZDATA, SHA, size=122354))
RATTLER_PACKAGES = f"""
packages:
- conda: {NUMPY}
  sha256: {SHA}
  md5: {MD5}
  depends:
  - python >=3.13,<3.14.0a0
  - __glibc >=2.17
  license: BSD-3-Clause
  purls:
  - pkg:pypi/numpy?source=hash-mapping
  size: 8123456
  timestamp: 1725411999999
- conda: {TZDATA}
  sha256: {SHA}
  size: 122354
- pypi: {WHEEL}
  name: rich
  version: 13.9.4
  sha256: {SHA}
  requires_dist:
  - pygments>=2.13.0,<3.0.0
  requires_python: '>=3.8.0'
- pypi: git+https://github.com/lab/tool?subdirectory=py&rev=main#{COMMIT}
  name: tool
  version: 0.3
"""
RATTLER_LOCK_V6 = Kind(
    "pixi.lock",
    f"""version: 6
environments:
  default:
    channels:
    - url: {FORGE}/
    indexes:
    - https://pypi.org/simple
    packages:
      linux-64:
      - conda: {NUMPY}
      - conda: {TZDATA}
      - pypi: {WHEEL}
        extras: [jupyter]
      - pypi: git+https://github.com/lab/tool?subdirectory=py&rev=main#{COMMIT}
  bare:
    channels:
    - url: {FORGE}/
    packages:
      linux-64:
      - conda: {TZDATA}
{RATTLER_PACKAGES}""",
    EnvSpec(
        explicit=RATTLER_ARCHIVES,
        pip=(
            LOCKED_RICH,
            f"tool @ git+https://github.com/lab/tool@{COMMIT}#subdirectory=py",
        ),
    ),
)
RATTLER_LOCK_NAMED = Kind(
    "pixi.lock",
    RATTLER_LOCK_V6.text,
    EnvSpec(explicit=(Archive(TZDATA, SHA, size=122354),)),
    environment="bare",
)
RATTLER_LOCK_V7 = Kind(
    "any-name.yml",
    f"""version: 7
platforms:
- name: linux-64-cuda
  subdir: linux-64
  virtual-packages:
  - __cuda=12
- name: win-64
environments:
  default:
    channels:
    - url: {FORGE}/
    packages:
      linux-64-cuda:
      - conda: {NUMPY}
      - conda: {TZDATA}
      win-64: []
{RATTLER_PACKAGES}""",
    EnvSpec(explicit=RATTLER_ARCHIVES),
)
RATTLER_LOCK_V5 = Kind(
    "old.lock",
    f"""version: 5
environments:
  default:
    channels:
    - url: {FORGE}/
    packages:
      linux-64:
      - conda: {NUMPY}
      - pypi: {WHEEL}
packages:
- kind: conda
  name: numpy
  version: 2.1.0
  url: {NUMPY}
  sha256: {SHA}
  md5: {MD5}
  depends: ['python >=3.13,<3.14.0a0', __glibc >=2.17]
  size: 8123456
- kind: pypi
  name: rich
  version: 13.9.4
  url: {WHEEL}
  sha256: {SHA}
""",
    EnvSpec(explicit=(RATTLER_NUMPY,), pip=(LOCKED_RICH,)),
)

PIXI_TEXT = """
[workspace]
name = "study"
channels = ["conda-forge"]
platforms = ["linux-64", "osx-arm64"]

[dependencies]
python = "3.13.*"
numpy = { version = ">=2", build = "*openblas*" }
scipy = "*"

[target.linux-64.dependencies]
scipy = ">=1.14"
perf = "*"

[target.osx-arm64.dependencies]
mlx = "*"

[pypi-dependencies]
rich = { version = "==13.9.4", extras = ["jupyter"] }
plain = "1.2"
direct = { url = "https://host/direct-1-py3-none-any.whl" }

[pypi-options]
extra-index-urls = ["https://pypi.lab.org/simple"]

[activation.env]
MODE = "fast"
LEVEL = "1"

[target.unix.activation.env]
LEVEL = "2"

[system-requirements]
libc = { family = "glibc", version = "2.28" }

[feature.gpu]
channels = ["nvidia", { channel = "lab", priority = -1 }]
dependencies = { cuda-version = "12.4.*" }
system-requirements = { cuda = "12" }
activation = { env = { MODE = "gpu" } }

[feature.bare.dependencies]
xz = "*"

[environments]
gpu = ["gpu"]
bare = { features = ["bare"], no-default-feature = true }
"""
PIXI_CONDA = (
    "python 3.13.*", "numpy[version='>=2', build='*openblas*']", "scipy >=1.14", "perf",
)  # fmt: skip
PIXI_PIP = (
    "--extra-index-url https://pypi.lab.org/simple",
    "rich[jupyter]==13.9.4",
    "plain==1.2",
    "direct @ https://host/direct-1-py3-none-any.whl",
)
PIXI = Kind(
    "pixi.toml",
    PIXI_TEXT,
    EnvSpec(
        channels=("conda-forge",),
        conda=(*PIXI_CONDA, "__glibc >=2.28"),
        pip=PIXI_PIP,
        variables={"MODE": "fast", "LEVEL": "2"},
    ),
)
PIXI_GPU = Kind(
    "pixi.toml",
    PIXI_TEXT,
    EnvSpec(
        channels=("nvidia", "conda-forge", "lab"),
        conda=("cuda-version 12.4.*", *PIXI_CONDA, "__cuda >=12", "__glibc >=2.28"),
        pip=PIXI_PIP,
        variables={"MODE": "gpu", "LEVEL": "2"},
    ),
    environment="gpu",
)
PIXI_BARE = Kind(
    "pixi.toml",
    PIXI_TEXT,
    EnvSpec(channels=("conda-forge",), conda=("xz",)),
    environment="bare",
)
PIXI_WITH_LOCK = Kind(
    "pixi.toml",
    """
[workspace]
channels = ["conda-forge"]
platforms = ["linux-64"]
exclude-newer = "2025-01-01"
[dependencies]
numpy = "2.1.*"
[pypi-dependencies]
Rich = "*"
numpy = "*"
[activation.env]
MODE = "fast"
""",
    EnvSpec(
        explicit=RATTLER_LOCK_V6.spec.explicit,
        pip=RATTLER_LOCK_V6.spec.pip,
        variables={"MODE": "fast"},
    ),
    beside={"pixi.lock": RATTLER_LOCK_V6.text},
)
PYPROJECT = Kind(
    "pyproject.toml",
    """
[project]
name = "study"
requires-python = ">= 3.11"
dependencies = ["rich>=13"]
[project.optional-dependencies]
plot = ["matplotlib>=3.9"]
[dependency-groups]
test = ["pytest", { include-group = "lint" }]
lint = ["ruff>=0.5"]
[tool.pixi.workspace]
channels = ["conda-forge"]
platforms = ["linux-64"]
[tool.pixi.dependencies]
numpy = "*"
[tool.pixi.environments]
work = { features = ["plot", "test"] }
""",
    EnvSpec(
        channels=("conda-forge",),
        conda=("numpy", "python >=3.11"),
        pip=("rich>=13", "matplotlib>=3.9", "pytest", "ruff>=0.5"),
    ),
    environment="work",
)

KINDS = {
    "environment.yml": ENVIRONMENT_YML,
    "modules alone": ONLY_MODULES,
    "@EXPLICIT": EXPLICIT,
    "conda-lock": CONDA_LOCK,
    "conda-lock, another category": CONDA_LOCK_DEV,
    "rattler lock 5": RATTLER_LOCK_V5,
    "rattler lock 6": RATTLER_LOCK_V6,
    "rattler lock 6, another environment": RATTLER_LOCK_NAMED,
    "rattler lock 7": RATTLER_LOCK_V7,
    "pixi.toml": PIXI,
    "pixi.toml, a feature": PIXI_GPU,
    "pixi.toml, no default feature": PIXI_BARE,
    "pixi.toml and pixi.lock": PIXI_WITH_LOCK,
    "pyproject.toml": PYPROJECT,
}


def written(folder: Path, kind: Kind) -> Path:
    for name, text in {kind.file: kind.text, **kind.beside}.items():
        (folder / name).write_text(text)
    return folder / kind.file


def refused(path: Path, **how: str) -> str:
    with pytest.raises(EnvError) as caught:
        read_spec(path, platform="linux-64", **how)
    assert str(path.parent) in str(caught.value), "the answer names the file"
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_spec_is_read(tmp_path, kind):
    """Whatever conda's and pixi's tools write or take says what the env holds, and nothing else."""
    path = written(tmp_path, kind)
    assert read_spec(path, environment=kind.environment, platform="linux-64") == kind.spec


@pytest.mark.parametrize("kind", [PIXI, PIXI_WITH_LOCK, PYPROJECT])
def test_a_project_may_be_named_by_its_folder(tmp_path, kind):
    """A folder with a pixi manifest means the project in it."""
    written(tmp_path, kind)
    assert read_spec(tmp_path, environment=kind.environment, platform="linux-64") == kind.spec


def test_a_lock_that_rattler_writes_is_read_back(tmp_path):
    """The names, digests and sizes that rattler puts into its newest lock are found again."""
    rattler = pytest.importorskip("rattler")
    path = tmp_path / "made.lock.yml"
    platform = rattler.LockPlatform("linux-64")
    lock = rattler.LockFile([platform])
    lock.set_channels("default", [rattler.LockChannel(f"{FORGE}/")])
    build = getattr(rattler, "BuildString", str)  # from 0.28 on
    record = rattler.RepoDataRecord(
        rattler.PackageRecord(
            "numpy", "2.1.0", build("py313_0"), 0, "linux-64", depends=["python >=3.13"],
            sha256=bytes.fromhex(SHA), size=77,
        ),
        "numpy-2.1.0-py313_0.conda", NUMPY, f"{FORGE}/",
    )  # fmt: skip
    lock.add_conda_package("default", platform, record)
    lock.add_pypi_package("default", platform, "rich", "13.9.4", f"{WHEEL}#sha256={SHA}")
    lock.to_path(path)
    assert read_spec(path, platform="linux-64") == EnvSpec(
        explicit=(Archive(NUMPY, SHA, "", ("python >=3.13",), 77),), pip=(LOCKED_RICH,)
    )


@pytest.mark.parametrize(
    "kind", [EXPLICIT, CONDA_LOCK, RATTLER_LOCK_V5, RATTLER_LOCK_V6, RATTLER_LOCK_V7, PIXI]
)
def test_another_platform_is_an_answer_that_names_those_there_are(tmp_path, kind):
    """A lock for other machines is refused by name, never half taken."""
    path = written(tmp_path, kind)
    with pytest.raises(EnvError, match=r"linux-ppc64le.*|linux-64") as caught:
        read_spec(path, platform="linux-ppc64le")
    assert "linux-64" in str(caught.value)
    assert "linux-ppc64le" in str(caught.value)


@pytest.mark.parametrize("kind", [CONDA_LOCK, RATTLER_LOCK_V6, PIXI, PIXI_WITH_LOCK])
def test_an_unknown_environment_is_answered_with_those_there_are(tmp_path, kind):
    """`#name` of an environment that is not in the file names the ones that are."""
    said = refused(written(tmp_path, kind), environment="nope")
    assert "'nope'" in said
    assert re.search(r"in it are (default|dev|gpu|main)", said)


@pytest.mark.parametrize("kind", [ENVIRONMENT_YML, EXPLICIT])
def test_a_file_of_one_environment_refuses_a_name(tmp_path, kind):
    """`environment.yml#gpu` is a mistake, and is told so."""
    assert "leave out `#gpu`" in refused(written(tmp_path, kind), environment="gpu").lower()


def test_mirrors_hold_for_archives_too(tmp_path):
    """What comes from a mirrored channel is fetched at the mirror, whichever file names it."""
    mirror = {"conda-forge": "https://m/cf/", f"{FORGE}/linux-64": "file:///near/linux-64"}
    for kind in (EXPLICIT, CONDA_LOCK, RATTLER_LOCK_V5, RATTLER_LOCK_V6):
        spec = read_spec(written(tmp_path, kind), mirror=mirror, platform="linux-64")
        urls = [archive.url for archive in spec.explicit]
        assert urls[0] == "file:///near/linux-64/numpy-2.1.0-py313_0.conda"
        assert not [url for url in urls if url.startswith(FORGE)]
    path = tmp_path / "e.yml"
    path.write_text(f"dependencies: ['{TZDATA}']")
    assert read_spec(path, mirror=mirror).conda == (
        "https://m/cf/noarch/tzdata-2024b-hc8b5060_0.conda",
    )


def test_archives_and_wheels_beside_a_lock_are_files(tmp_path):
    """A path in a lock begins at the lock; a wheel with a digest is exact, wherever it lies."""
    path = tmp_path / "pixi.lock"
    path.write_text(
        f"""version: 6
environments:
  default:
    channels: []
    packages:
      linux-64:
      - conda: ./chan/noarch/a-1-0.conda
      - conda: /abs/chan/noarch/b-1-0.conda
      - pypi: ../wheels/w-1-py3-none-any.whl
packages:
- conda: ./chan/noarch/a-1-0.conda
- conda: /abs/chan/noarch/b-1-0.conda
- pypi: ../wheels/w-1-py3-none-any.whl
  name: w
  sha256: {SHA}
"""
    )
    spec = read_spec(path, platform="linux-64")
    assert [archive.url for archive in spec.explicit] == [
        (tmp_path / "chan/noarch/a-1-0.conda").as_uri(),
        "file:///abs/chan/noarch/b-1-0.conda",
    ]
    wheel = (tmp_path.parent / "wheels/w-1-py3-none-any.whl").as_uri()
    assert spec.pip == (f"w @ {wheel}#sha256={SHA}",)


BRANCH = "git+https://h/r?rev=main#abc"
V6 = "version: 6\nenvironments:\n  default:\n    channels: []\n    packages:\n      linux-64:\n"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        # environment.yml
        ("e.yml", "dependencies: [python]\nmodules: {a: b}", "`modules` cannot be read"),
        ("e.yml", "dependencies: [python]\nmodules: ['gcc; rm -rf /']", "`modules` cannot be read"),
        ("e.yml", "dependencies: [python]\ndependencies: [numpy]", "is there twice"),
        ("e.yml", "dependencies: [https://h/c/linux-64/../a-1-0.conda]", "'..' in it"),
        # lists of archives
        ("x.txt", "@EXPLICIT\n", "lists no archives"),
        ("x.txt", f"@EXPLICIT\n{NUMPY}#1234", "not a md5"),
        ("x.txt", f"@EXPLICIT\n{NUMPY}#sha256:{MD5}", "not a sha256"),
        ("x.txt", "@EXPLICIT\nhttps://h/linux-64/%2e%2e%2fevil-1-0.conda", "'..' in it"),
        ("x.txt", "@EXPLICIT\nhttps://h/linux-64/..%5cevil-1-0.conda", "odd characters"),
        ("x.txt", "@EXPLICIT\nhttps://h/linux-64/.-1-0.conda", "not NAME-VERSION-BUILD"),
        ("x.txt", "@EXPLICIT\nhttps://h/linux-64/a-1-0.conda?x=a/b-1-0.conda", "question mark"),
        ("x.txt", "@EXPLICIT\nhttps://h/linux-64/a b-1-0.conda", "a space"),
        ("x.txt", "@EXPLICIT\nftp://h/linux-64/a-1-0.conda", "not the URL of a conda archive"),
        # conda-lock
        ("l.yml", CONDA_LOCK_TEXT.replace("version: 1\n", "version: 2\n", 1), "version '2'"),
        ("l.yml", CONDA_LOCK_TEXT.replace("manager: pip", "manager: npm"), "manager 'npm'"),
        ("l.yml", CONDA_LOCK_TEXT.replace(f"url: {NUMPY}", "url: [a]"), "`url` is not text"),
        ("l.yml", CONDA_LOCK_TEXT.replace(f"url: {WHEEL}", "url: ./x"), "a folder on this machine"),
        ("l.yml", "version: 1\nmetadata: {}\npackage: []", "no packages for linux-64"),
        ("l.yml", "version: 1\nmetadata: {}\npackage: [3]", "not a list of names"),
        # rattler's locks
        ("pixi.lock", "version: 4\nmetadata: {}\npackages: []", "version '4'"),
        ("pixi.lock", "version: 8\nenvironments: {}\npackages: []", "version '8'"),
        ("pixi.lock", "version: 6\nenvironments: {}\npackages: []", "no environment 'default'"),
        ("pixi.lock", f"{V6}      - conda: {NUMPY}\npackages: []", "not described"),
        ("pixi.lock", f"{V6}      - pypi: ./\npackages:\n- pypi: ./\n  name: me", "a folder on"),
        (
            "pixi.lock",
            f"{V6}      - pypi: {BRANCH}\npackages:\n- pypi: {BRANCH}\n  name: me",
            "commit is not written in full",
        ),
        (
            "pixi.lock",
            f"{V6}      - conda: ../mine\npackages:\n- conda: ../mine\n  name: mine",
            "'mine' in it is built from source",
        ),
        (
            "pixi.lock",
            f"{V6}      - source: 'mine[ac2e8eb3] @ ../mine'\npackages: []",
            "is built from source",
        ),
        (
            "pixi.lock",
            f"{V6}      - conda: {NUMPY}\npackages:\n- conda: {NUMPY}\n  size: -1",
            "not a size",
        ),
        # pixi
        ("pixi.toml", "[workspace]\nchannels=[]\n[dependencies]\na='*'", "`channels` of"),
        ("pixi.toml", "[workspace]\nchannels=['c']", "lists no dependencies"),
        ("pixi.toml", "a = [", "not TOML"),
        ("pixi.toml", "[dependencies]\na = {path = '../a'}", "given by `path`"),
        ("pixi.toml", "[dependencies]\na = {git = 'https://h/r'}", "given by `git`"),
        ("pixi.toml", "[dependencies]\na = {versio = '1'}", "unknown 'versio'"),
        ("pixi.toml", "[dependencies]\na = '1'\n[activation]\nscripts = ['a.sh']", "has scripts"),
        ("pixi.toml", "[dependencies]\na = '1'\n[activation.env]\nA = '$B'", "has a `$`"),
        ("pyproject.toml", "[project]\nname = 'x'", "not the manifest of a pixi project"),
        ("Cargo.toml", "[package]\nname = 'x'", "not the manifest of a pixi project"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_in_words(tmp_path, file, text, said):
    """The answer names the file and the trouble, and says what to do."""
    path = tmp_path / file
    path.write_text(text)
    assert said in refused(path)


WORKSPACE = "[workspace]\nchannels = ['conda-forge']\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[dependencies]\na = '1'\n[pypi-dependencies]\nme = {path='.', editable=true}", "`path`"),
        ("[dependencies]\na = '1'\n[pypi-dependencies]\nb = {git='https://h/r'}", "`git`"),
        (
            "[dependencies]\na = '1'\n[pypi-dependencies]\nb = {index='https://i'}",
            "index of its own",
        ),
        ("[dependencies]\na = '1'\n[pypi-options]\nno-build-isolation = ['x']", "told to uv"),
        ("[dependencies]\na = '1'\n[constraints]\nb = '<2'", "only pixi can follow"),
        ("[dependencies]\na = 'x y z'", "cannot be read"),
        ("[environments]\ndefault = ['nope']", "no feature 'nope'"),
        ("exclude-newer = '2025-01-01'\n[dependencies]\na = '1'", "`exclude-newer` changes"),
        ("channel-priority = 'disabled'\n[dependencies]\na = '1'", "`channel-priority` changes"),
    ],
)
def test_what_only_pixi_can_do_is_refused(tmp_path, text, said):
    """A wish that would silently get another solution than pixi's is refused, with the way out."""
    path = tmp_path / "pixi.toml"
    path.write_text(WORKSPACE + text)
    assert said in refused(path)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (
            "[dependencies]\nnumpy='*'\npandas='*'\n[pypi-dependencies]\nDjango='*'",
            "pandas, django",
        ),
        ("[dependencies]\nrich = '*'", "has no rich"),
        ("[dependencies]\nnumpy = '2.2.*'", "has numpy 2.1.0, and 2.2.* is asked for"),
        ("[dependencies]\nnumpy = {version = '==2.1.1'}", "has numpy 2.1.0"),
    ],
)
def test_a_lock_older_than_its_manifest_is_refused(tmp_path, manifest, said):
    """A package that was added after the last `pixi lock` is not silently missing."""
    (tmp_path / "pixi.toml").write_text(WORKSPACE + manifest)
    (tmp_path / "pixi.lock").write_text(RATTLER_LOCK_V6.text)
    answer = refused(tmp_path / "pixi.toml")
    assert said in answer
    assert "Run `pixi lock`" in answer


@pytest.mark.parametrize("wish", ["2.1.*", "==2.1", "2.1.0.0", ">=2,<3", "2.*", "*", "~=2.1"])
def test_a_lock_that_fits_is_taken(tmp_path, wish):
    """Nothing that the lock satisfies is refused."""
    (tmp_path / "pixi.toml").write_text(f"{WORKSPACE}[dependencies]\nnumpy = '{wish}'")
    (tmp_path / "pixi.lock").write_text(RATTLER_LOCK_V6.text)
    spec = read_spec(tmp_path, platform="linux-64")
    assert spec.explicit == RATTLER_ARCHIVES


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize("file", ["e.yml", "conda-lock.yml", "pixi.lock", "pixi.toml", "pin.txt"])
@pytest.mark.parametrize(
    "text",
    [
        LAUGHS + "dependencies: *a11\n",
        "dependencies: " + "[" * 100_000,
        "dependencies: " + "- " * 100_000,
        "{a: " * 50_000,
        "a = " + "[" * 50_000,
        ".".join("a" * 200_000) + " = 1",
        "dependencies: !!python/object/apply:os.system ['touch /tmp/pwned']",
        "&a dependencies: [*a, &b [*b]]",
        "dependencies: [python]\n---\ndependencies: [numpy]",
        "? [a, b]\n: c",
        "dependencies: [python]\nvariables: {A: 2024-13-45, B: 1:99:99, C: !!binary '%%'}",
        "dependencies: [" + "9" * 20_000 + "]",
        "dependencies: [a" + " " * 50_000 + "x, pip: ['b" + " " * 50_000 + "x']]",
        "dependencies: ['a\\u001b[31m']\x00",
        'dependencies: ["python\\e[31m"]',
        "@EXPLICIT\nhttps://h/linux-64/a-1-0.conda\x1b[31m",
        "@EXPLICIT\nhttps://[::1/linux-64/a-1-0.conda",
        "version: 6\nenvironments:\n  default: 3\npackages: 4",
        "version: 1\nmetadata: 1\npackage: {a: b}",
        "[workspace]\nchannels = 3\n[dependencies]\na = 1979-05-27",
        "environments = 3\nfeature = 4\ntarget = 5\n[dependencies]\na = true",
        "",
        "null",
    ],
    ids=lambda text: re.sub(r"\W+", "-", text[:30]),
)  # fmt: skip
def test_hostile_text_is_refused_at_once(tmp_path, file, text):
    """A file made to break its reader gets an answer within seconds, and nothing in it is run."""
    path = tmp_path / file
    path.write_text(text)
    begun = time.monotonic()
    refused(path)
    assert time.monotonic() - begun < 5
    assert not Path("/tmp/pwned").exists()


def test_odd_files_are_refused(tmp_path):
    """Pipes are not waited for, folders and huge files not read."""
    import os

    os.mkfifo(tmp_path / "pipe.yml")
    assert "not a file" in refused(tmp_path / "pipe.yml")
    with (tmp_path / "huge.yml").open("wb") as stream:
        stream.truncate(10**9)
    assert "larger than" in refused(tmp_path / "huge.yml")
    (tmp_path / "folder").mkdir()
    assert "folder" in refused(tmp_path / "folder")
    with pytest.raises(EnvError):
        read_spec(tmp_path / "nul\0.yml")


SECRET = "hunter2"  # noqa: S105 - it must not be seen again


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("e.yml", f"channels: ['https://me:{SECRET}@h/c x']\ndependencies: [python]"),
        ("e.yml", f"dependencies: ['https://me:{SECRET}@h/c::x y z w']"),
        ("e.yml", f"dependencies: [python, pip: ['-e https://me:{SECRET}@h/c']]"),
        ("x.txt", f"@EXPLICIT\nhttps://h/t/{SECRET}/linux-64/a-1.conda"),
        ("x.txt", f"@EXPLICIT\nhttps://h/linux-64/a-1-0.conda?token={SECRET}"),
        ("pixi.lock", f"{V6}      - conda: https://u:{SECRET}@h/a-1-0.conda\npackages: []"),
        ("pixi.toml", f"{WORKSPACE}[dependencies]\na = {{git = 'https://u:{SECRET}@h/r'}}"),
        ("pixi.toml", f"{WORKSPACE}[dependencies]\na='1'\n[pypi-options]\nindex-url=['https://u:{SECRET}@h']"),
    ],
)  # fmt: skip
def test_no_secret_reaches_a_message(tmp_path, file, text):
    """Whatever is wrong with a file, passwords and tokens in its URLs stay in it."""
    (tmp_path / file).write_text(text)
    assert SECRET not in refused(tmp_path / file)


READERS = {
    "environment.yml": environment_yml.read,
    "x.txt": explicit.read,
    "conda-lock.yml": conda_lock.read,
    "pixi.lock": rattler_lock.read,
    "pixi.toml": pixi_project.read,
    "pyproject.toml": pixi_project.read,
}
words = st.sampled_from(
    [kind.text for kind in KINDS.values()]
    + ["dependencies", "[", "]", "{", "}", ":", "- ", "\n", "  ", "=", "'", '"', "&a", "*a", "!x"]
)


@given(st.sampled_from(sorted(READERS)), st.lists(st.one_of(words, st.text(max_size=8))))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_text_breaks_a_reader(name, parts):
    """Any text at all is a spec or an answer about the file, never another exception."""
    try:
        READERS[name](Source(Path("/folder", name)), "".join(parts))
    except EnvError as error:
        assert f"/folder/{name}" in str(error)  # noqa: PT017 - either outcome is right


@given(st.sampled_from(sorted(KINDS)), st.data())
@settings(deadline=None)
def test_no_damage_breaks_a_reader(kind, data):
    """A file with a part cut out or replaced is a spec or an answer, never another exception."""
    file, text = KINDS[kind].file, KINDS[kind].text
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 40)))
    damaged = text[:start] + data.draw(st.text(max_size=6)) + text[stop:]
    reader = READERS.get(file, rattler_lock.read)
    try:
        reader(Source(Path("/folder", file)), damaged)
    except EnvError as error:
        assert f"/folder/{file}" in str(error)  # noqa: PT017 - either outcome is right


def test_yaml_is_read_as_it_is_written():
    """Numbers keep their zeros, and what YAML takes for something else is told apart from text."""
    found = yaml_text.parse("a: 3.10\nb: '3.10'\nc: on\nd:\ne: [x, &n 007, *n]\n")
    assert {name: str(value) for name, value in found.items() if name < "c"} == {
        "a": "3.10",
        "b": "3.10",
    }
    assert (found["a"].kind, found["b"], found["c"].kind) == ("float", "3.10", "bool")
    assert found["d"] is None
    assert [str(value) for value in found["e"]] == ["x", "007", "007"]


def test_this_machine_has_a_platform():
    """The platform that files are read for is conda's name of this machine."""
    rattler = pytest.importorskip("rattler")
    subdir = getattr(rattler.platform, "Subdir", None) or rattler.platform.Platform
    assert this_platform() == str(subdir.current())
