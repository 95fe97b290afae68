from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
STUBS = ROOT / "secagg" / "v1"
FILES = tuple(
    f"{proto}_{suffix}"
    for proto in ("aggregation", "ingest", "opening")
    for suffix in ("pb2.py", "pb2.pyi", "pb2_grpc.py", "pb2_grpc.pyi")
)

FLOATING = {
    descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
}
# Field numbers of descriptor.proto, of which the paths in SourceCodeInfo consist.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 4, 5, 6
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, MESSAGE_ONEOF = 2, 3, 4, 8
ENUM_VALUE, SERVICE_METHOD = 2, 2


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("stubs")
    # No PATH: the plugin must be found beside the interpreter.
    subprocess.run(
        [sys.executable, str(PROTOS / "generate.py"), str(target)],
        check=True,
        capture_output=True,
        env={"PATH": ""},
        timeout=60,
    )
    return target / "secagg" / "v1"


@pytest.mark.parametrize("name", FILES)
def test_the_checked_in_stubs_are_what_the_generator_writes(generated, name):
    # A plain comparison: a difference of 20 kB is no help to anybody.
    same = (generated / name).read_bytes() == (STUBS / name).read_bytes()
    assert same, f"{name} is stale or edited: run `make protos`"


def test_nothing_else_is_generated_or_checked_in(generated):
    assert {path.name for path in generated.iterdir()} == set(FILES)
    checked_in = {path.name for path in STUBS.iterdir() if path.name != "__pycache__"}
    assert checked_in == {*FILES, "__init__.py"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def floors() -> dict[str, str]:
    found = {}
    for requirement in project()["project"]["dependencies"]:
        match = re.match(r"([a-z0-9-]+)>=([0-9.]+)", requirement)
        assert match, requirement
        found[match[1]] = match[2]
    return found


def test_the_floor_of_protobuf_is_what_the_stubs_were_generated_with():
    header = re.search(r"^# Protobuf Python Version: ([0-9.]+)$", (STUBS / FILES[0]).read_text(), re.MULTILINE)
    assert header
    assert floors()["protobuf"] == header[1]


def test_the_floors_of_grpcio_and_its_companions_are_what_the_stubs_were_generated_with():
    header = re.search(
        r"^GRPC_GENERATED_VERSION = '([0-9.]+)'$", (STUBS / "aggregation_pb2_grpc.py").read_text(), re.MULTILINE
    )
    assert header
    companions = {name: floor for name, floor in floors().items() if name.startswith("grpcio")}
    assert set(companions) == {"grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status"}
    assert set(companions.values()) == {header[1]}
    assert f"grpcio-tools=={header[1]}" in project()["dependency-groups"]["dev"]


def test_the_generator_of_types_is_pinned():
    pins = [each for each in project()["dependency-groups"]["dev"] if each.startswith("mypy-protobuf")]
    assert len(pins) == 1
    assert re.fullmatch(r"mypy-protobuf==[0-9.]+", pins[0])


# The lint.


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[descriptor_pb2.FileDescriptorProto]:
    target = tmp_path_factory.mktemp("descriptors") / "set"
    # In a process of its own: once this compiler is loaded, importing TenSEAL ends the process (two protobufs in C++).
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{PROTOS}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        "--include_source_info",
        f"--descriptor_set_out={target}",
        *sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")),
    ]
    subprocess.run(command, check=True)
    found = list(descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file)
    assert found
    return found


Element = tuple[tuple[int, ...], str, object]


def elements(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Element]:
    """Path, full name and descriptor of everything that a reader of the proto sees."""
    for i, message in enumerate(file.message_type):
        yield from message_elements(message, (FILE_MESSAGE, i), message.name)
    for i, enum in enumerate(file.enum_type):
        yield from enum_elements(enum, (FILE_ENUM, i), enum.name)
    for i, service in enumerate(file.service):
        yield (FILE_SERVICE, i), service.name, service
        for j, method in enumerate(service.method):
            yield (FILE_SERVICE, i, SERVICE_METHOD, j), f"{service.name}.{method.name}", method


def message_elements(message: descriptor_pb2.DescriptorProto, path: tuple[int, ...], name: str) -> Iterator[Element]:
    yield path, name, message
    for i, field in enumerate(message.field):
        yield (*path, MESSAGE_FIELD, i), f"{name}.{field.name}", field
    for i, oneof in enumerate(message.oneof_decl):
        yield (*path, MESSAGE_ONEOF, i), f"{name}.{oneof.name}", oneof
    for i, nested in enumerate(message.nested_type):
        yield from message_elements(nested, (*path, MESSAGE_NESTED, i), f"{name}.{nested.name}")
    for i, enum in enumerate(message.enum_type):
        yield from enum_elements(enum, (*path, MESSAGE_ENUM, i), f"{name}.{enum.name}")


def enum_elements(enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...], name: str) -> Iterator[Element]:
    yield path, name, enum
    for i, value in enumerate(enum.value):
        yield (*path, ENUM_VALUE, i), f"{name}.{value.name}", value


def test_every_message_field_value_service_and_method_is_commented(files):
    for file in files:
        commented = {
            tuple(location.path)
            for location in file.source_code_info.location
            if location.leading_comments.strip() or location.trailing_comments.strip()
        }
        everything = list(elements(file))
        assert len(everything) > 30
        assert [name for path, name, _ in everything if path not in commented] == []


def test_there_is_no_floating_point_on_the_wire(files):
    found = [
        name
        for file in files
        for _, name, element in elements(file)
        if isinstance(element, descriptor_pb2.FieldDescriptorProto) and element.type in FLOATING
    ]
    assert found == []


def test_the_zero_of_an_enum_is_unspecified_and_values_carry_its_name(files):
    for file in files:
        for _, name, element in elements(file):
            if isinstance(element, descriptor_pb2.EnumDescriptorProto):
                prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", element.name).upper() + "_"
                zero = [value.name for value in element.value if value.number == 0]
                assert zero == [prefix + "UNSPECIFIED"], name
                assert all(value.name.startswith(prefix) for value in element.value), name


def test_every_rpc_has_its_own_request_and_response(files):
    seen = []
    for file in files:
        for service in file.service:
            for method in service.method:
                assert method.input_type == f".{file.package}.{method.name}Request"
                assert method.output_type == f".{file.package}.{method.name}Response"
                seen += [method.input_type, method.output_type]
    assert len(seen) == len(set(seen))


def test_the_package_is_versioned_and_is_its_path(files):
    for file in files:
        assert re.fullmatch(r"[a-z]+(\.[a-z]+)*\.v[1-9][0-9]*", file.package)
        assert file.package == Path(file.name).parent.as_posix().replace("/", ".")
        assert file.syntax == "proto3"
        assert all(dependency.startswith(("google/protobuf/", "secagg/")) for dependency in file.dependency)
