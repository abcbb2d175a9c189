"""The messages of the Open Inference Protocol's gRPC service, in a pool of their own.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto, and
Triton's grpc_service.proto, which adds numbers to the parameters.

Code that protoc generates would put them into protobuf's default pool, and clients in the same process, such as
tritonclient, put messages of the same names there: protobuf refuses the second.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""Each takes NAMERequest and gives NAMEResponse."""
MAP = "map<string, InferParameter> parameters"
TENSOR = ("string name = 1", "string datatype = 2", "repeated int64 shape = 3")
FIELDS: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live = 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready = 1",),
    "ModelReadyRequest": ("string name = 1", "string version = 2"),
    "ModelReadyResponse": ("bool ready = 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name = 1", "string version = 2", "repeated string extensions = 3"),
    "ModelMetadataRequest": ("string name = 1", "string version = 2"),
    "ModelMetadataResponse": (
        "string name = 1", "repeated string versions = 2", "string platform = 3",
        "repeated ModelMetadataResponse.TensorMetadata inputs = 4",
        "repeated ModelMetadataResponse.TensorMetadata outputs = 5",
    ),
    "ModelMetadataResponse.TensorMetadata": TENSOR,
    "InferParameter": (
        "oneof bool bool_param = 1", "oneof int64 int64_param = 2", "oneof string string_param = 3",
        "oneof double double_param = 4", "oneof uint64 uint64_param = 5",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents = 1", "repeated int32 int_contents = 2", "repeated int64 int64_contents = 3",
        "repeated uint32 uint_contents = 4", "repeated uint64 uint64_contents = 5", "repeated float fp32_contents = 6",
        "repeated double fp64_contents = 7", "repeated bytes bytes_contents = 8",
    ),
    "ModelInferRequest": (
        "string model_name = 1", "string model_version = 2", "string id = 3", f"{MAP} = 4",
        "repeated ModelInferRequest.InferInputTensor inputs = 5",
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6", "repeated bytes raw_input_contents = 7",
    ),
    "ModelInferRequest.InferInputTensor": (*TENSOR, f"{MAP} = 4", "InferTensorContents contents = 5"),
    "ModelInferRequest.InferRequestedOutputTensor": ("string name = 1", f"{MAP} = 2"),
    "ModelInferResponse": (
        "string model_name = 1", "string model_version = 2", "string id = 3", f"{MAP} = 4",
        "repeated ModelInferResponse.InferOutputTensor outputs = 5", "repeated bytes raw_output_contents = 6",
    ),
    "ModelInferResponse.InferOutputTensor": (*TENSOR, f"{MAP} = 4", "InferTensorContents contents = 5"),
}  # fmt: skip
"""The fields of each message, in the words of a .proto; those marked ``oneof`` exclude each other."""
FIELD = re.compile(r"(?:(repeated|oneof) )?(map<string, )?([\w.]+)>? (\w+) = (\d+)")
Field = descriptor_pb2.FieldDescriptorProto


def _file() -> Any:
    """The description that protoc would make of a .proto with these messages."""
    file = descriptor_pb2.FileDescriptorProto(name="fastcam/open_inference.proto", package="inference", syntax="proto3")
    made: dict[str, Any] = {}
    for full, fields in FIELDS.items():
        outer, _, name = full.rpartition(".")
        message = made[full] = (made[outer].nested_type if outer else file.message_type).add(name=name)
        for text in fields:
            found = FIELD.fullmatch(text)
            assert found is not None, text
            kind, of_map, type_name, field, number = found.groups()
            if of_map:
                entry = message.nested_type.add(name=f"{field.title()}Entry")
                entry.options.map_entry = True
                _add(entry, "key", 1, "string", Field.LABEL_OPTIONAL)
                _add(entry, "value", 2, type_name, Field.LABEL_OPTIONAL)
                type_name = f"{full}.{entry.name}"
            many = kind == "repeated" or of_map
            added = _add(message, field, int(number), type_name, Field.LABEL_REPEATED if many else Field.LABEL_OPTIONAL)
            if kind == "oneof":
                added.oneof_index = 0
                if not message.oneof_decl:
                    message.oneof_decl.add(name="parameter_choice")
    return file


def _add(message: Any, name: str, number: int, type_name: str, label: Any) -> Any:
    field = message.field.add(name=name, number=number, label=label)
    if type_name[0].isupper():
        field.type, field.type_name = Field.TYPE_MESSAGE, f".inference.{type_name}"
    else:
        field.type = Field.Type.Value(f"TYPE_{type_name.upper()}")
    return field


POOL = descriptor_pool.DescriptorPool()
POOL.Add(_file())
MESSAGES: dict[str, Any] = {
    name: message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}")) for name in FIELDS
}
"""The classes by name; nested ones by both names with a dot between."""
