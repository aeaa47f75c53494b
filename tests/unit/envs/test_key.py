"""The key of an env: the same for files that ask for the same, and another for everything else."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcburst.envs.specs.formats import environment_yml
from hpcburst.envs.specs.formats.source import Source
from hpcburst.envs.specs.spec import Archive, EnvSpec
from support.specs import (
    PLATFORM,
    VIRTUAL,
    dependencies,
    options,
    requirements,
    specs,
    tuples,
    words,
)


def key(spec: EnvSpec) -> str:
    return spec.key(PLATFORM, VIRTUAL)


def shuffled(random, entries, *, again: bool = True):
    """The same entries in another order, some of them more than once."""
    more = list(entries) + ([random.choice(entries)] if entries and again else [])
    random.shuffle(more)
    return tuple(more)


@given(specs, st.randoms())
def test_order_and_repetition_of_dependencies_play_no_role(spec, random):
    """However often and in whichever order packages are listed, the env is the same."""
    options = tuple(line for line in spec.pip if line.startswith("-"))
    wanted = tuple(line for line in spec.pip if not line.startswith("-"))
    names = shuffled(random, tuple(spec.variables), again=False)
    other = EnvSpec(
        channels=spec.channels,
        conda=shuffled(random, spec.conda),
        pip=shuffled(random, wanted) + options + options[:1],
        variables={name: spec.variables[name] for name in names},
        explicit=shuffled(random, spec.explicit),
        modules=spec.modules,
    )
    assert key(other) == key(spec)
    assert spec.key(PLATFORM, VIRTUAL[::-1]) == key(spec)


CHANGES = {
    "channels": [
        lambda spec: replace(spec, channels=(*spec.channels, "another.channel")),
        lambda spec: replace(spec, channels=("another.channel", *spec.channels)),
        lambda spec: replace(spec, channels=("another.channel", *spec.channels[1:])),
    ],
    "conda": [
        lambda spec: replace(spec, conda=(*spec.conda, "another-package")),
        lambda spec: replace(spec, conda=tuple(f"{entry}.0" for entry in spec.conda) or ("x",)),
    ],
    "pip": [
        lambda spec: replace(spec, pip=(*spec.pip, "another-package")),
        lambda spec: replace(spec, pip=("--extra-index-url https://another/", *spec.pip)),
        lambda spec: replace(spec, pip=tuple(f"{line}.0" for line in spec.pip) or ("x",)),
    ],
    "variables": [
        lambda spec: replace(spec, variables={**spec.variables, "another_name": ""}),
        lambda spec: replace(
            spec, variables={n: v + "!" for n, v in spec.variables.items()} or {"A": "!"}
        ),
    ],
    "explicit": [
        lambda spec: replace(spec, explicit=(*spec.explicit, Archive("https://another/x-1-0.conda"))),
        lambda spec: replace(
            spec,
            explicit=tuple(replace(a, sha256="0" + a.sha256) for a in spec.explicit)
            or (Archive("u"),),
        ),
        lambda spec: replace(
            spec,
            explicit=tuple(replace(a, url=f"{a.url}x") for a in spec.explicit) or (Archive("u"),),
        ),
    ],
    "modules": [
        lambda spec: replace(spec, modules=(*spec.modules, "another.module")),
        lambda spec: replace(spec, modules=("another.module", *spec.modules)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("field", [field.name for field in fields(EnvSpec)])
@given(specs, st.data())
def test_nothing_else_is_left_out_of_the_key(field, spec, data):
    """Whatever else of a spec changes makes another env: no field is forgotten."""
    change = data.draw(st.sampled_from(CHANGES[field]))
    assert key(change(spec)) != key(spec)


@pytest.mark.parametrize("field", ["channels", "modules"])
@given(specs, st.randoms())
def test_the_order_of_channels_and_modules_counts(field, spec, random):
    """Which channel is asked first, and which module is loaded last, makes another env."""
    entries = getattr(spec, field)
    other = shuffled(random, entries, again=False)
    assert (key(replace(spec, **{field: other})) == key(spec)) == (entries == other)


@given(tuples(options, 2), tuples(requirements))
def test_the_order_of_pip_indexes_counts(first, rest):
    """uv takes a package from the first index that has it."""
    assert key(EnvSpec(pip=first + rest)) != key(EnvSpec(pip=first[::-1] + rest))


@given(specs, specs)
def test_two_specs_share_a_key_only_if_they_ask_for_the_same(one, other):
    """No two wishes that differ fall together, as text of one field might with another's."""
    same = (
        one.channels == other.channels
        and set(one.conda) == set(other.conda)
        and [line for line in one.pip if line[0] == "-"]
        == [line for line in other.pip if line[0] == "-"]
        and set(one.pip) == set(other.pip)
        and dict(one.variables) == dict(other.variables)
        and {a.identity for a in one.explicit} == {a.identity for a in other.explicit}
        and one.modules == other.modules
    )
    assert (key(one) == key(other)) == same


@given(specs)
def test_the_machine_counts_but_not_its_kernel_and_cpu(spec):
    """CUDA and libc decide what fits; kernel and CPU model change from node to node."""
    assert re.fullmatch(r"[0-9a-f]{20}", key(spec)), "it names a folder"
    assert key(spec) != spec.key("linux-aarch64", VIRTUAL)
    assert key(spec) != spec.key(PLATFORM, [*VIRTUAL, "__cuda=12.4=0"])
    assert key(spec) != spec.key(PLATFORM, ["__unix=0=0", "__glibc=2.28=0"])
    assert key(spec) == spec.key(PLATFORM, [*VIRTUAL, "__linux=6.1=0", "__archspec=1=zen4"])


@given(
    tuples(words, 1),
    tuples(dependencies, 1),
    tuples(requirements),
    st.randoms(),
    st.tuples(st.one_of(st.none(), words), st.one_of(st.none(), words)),
)
def test_files_that_differ_in_name_prefix_and_order_share_an_env(
    channels, conda, pip, random, names
):
    """What an environment file is called, and how it is laid out, plays no role."""

    def text(name, conda, pip):
        head = [f"name: {name}", f"prefix: /somewhere/{name}"] if name else []
        rows = [f"  - {entry!r}" for entry in conda]
        rows += ["  - pip:", *(f"      - {line!r}" for line in pip)] if pip else []
        tables = [
            "\n".join(head),
            "channels:\n" + "\n".join(f"  - {channel}" for channel in channels),
            "dependencies:\n" + "\n".join(rows),
        ]
        random.shuffle(tables)
        return "\n".join(tables)

    one = text(names[0], conda, pip)
    other = text(names[1], shuffled(random, conda), shuffled(random, pip))
    read = [
        environment_yml.read(Source(Path(folder, "environment.yml")), source)
        for folder, source in (("/a", one), ("/b", other))
    ]
    assert key(read[0]) == key(read[1])
