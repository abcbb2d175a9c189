"""The messages of the gRPC services, in a pool of their own.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto; Triton's
grpc_service.proto and model_config.proto, which add numbers to the parameters, configurations and statistics; and
https://github.com/grpc/grpc-proto, grpc/health/v1/health.proto.

Code that protoc generates would put them into protobuf's default pool, and clients in the same process, such as
tritonclient, put messages of the same names there: protobuf refuses the second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fastcam.serving.watching.statistics import STEPS

SERVICE = "inference.GRPCInferenceService"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelConfig",
           "ModelStatistics")  # fmt: skip
"""Each takes NAMERequest and gives NAMEResponse."""
HEALTH = "grpc.health.v1.Health"
"""Its methods Check and Watch take HealthCheckRequest and give HealthCheckResponse."""
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
    "ModelConfigRequest": ("string name = 1", "string version = 2"),
    "ModelConfigResponse": ("ModelConfig config = 1",),
    "ModelConfig": (
        "string name = 1", "string platform = 2", "int32 max_batch_size = 4", "repeated ModelInput input = 5",
        "repeated ModelOutput output = 6", "oneof ModelDynamicBatching dynamic_batching = 11", "string backend = 17",
    ),
    "ModelTensorReshape": ("repeated int64 shape = 1",),
    "ModelInput": (
        "string name = 1", "DataType data_type = 2", "repeated int64 dims = 4", "ModelTensorReshape reshape = 5",
        "bool is_shape_tensor = 6", "bool optional = 8",
    ),
    "ModelOutput": (
        "string name = 1", "DataType data_type = 2", "repeated int64 dims = 3", "ModelTensorReshape reshape = 5",
        "bool is_shape_tensor = 6",
    ),
    "ModelDynamicBatching": ("repeated int32 preferred_batch_size = 1", "uint64 max_queue_delay_microseconds = 2"),
    "ModelStatisticsRequest": ("string name = 1", "string version = 2"),
    "ModelStatisticsResponse": ("repeated ModelStatistics model_stats = 1",),
    "ModelStatistics": (
        "string name = 1", "string version = 2", "uint64 last_inference = 3", "uint64 inference_count = 4",
        "uint64 execution_count = 5", "InferStatistics inference_stats = 6",
        "repeated InferBatchStatistics batch_stats = 7",
    ),
    "InferStatistics": tuple(f"StatisticDuration {step} = {number}" for number, step in enumerate(STEPS, 1)),
    "InferBatchStatistics": ("uint64 batch_size = 1", "StatisticDuration compute_infer = 3"),
    "StatisticDuration": ("uint64 count = 1", "uint64 ns = 2"),
}  # fmt: skip
"""The fields of each message, in the words of a .proto; those marked ``oneof`` exclude each other. Of a configuration
and of statistics they are those that are said here."""
HEALTH_FIELDS = {
    "HealthCheckRequest": ("string service = 1",),
    "HealthCheckResponse": ("ServingStatus status = 1",),
}  # fmt: skip
ENUMS = {
    "DataType": (
        "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8",
        "TYPE_INT16", "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16",
    ),
    "ServingStatus": ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"),
}  # fmt: skip
"""Words by their number."""
CHOICES = {"InferParameter": "parameter_choice", "ModelConfig": "scheduling_choice"}
"""What those that exclude each other are called."""
FIELD = re.compile(r"(?:(repeated|oneof) )?(map<string, )?([\w.]+)>? (\w+) = (\d+)")
Field = descriptor_pb2.FieldDescriptorProto


def _file(package: str, messages: Mapping[str, Sequence[str]], enum: str) -> Any:
    """The description that protoc would make of a .proto with these messages."""
    file = descriptor_pb2.FileDescriptorProto(name=f"fastcam/{package}.proto", package=package, syntax="proto3")
    words = file.enum_type.add(name=enum)
    for value, word in enumerate(ENUMS[enum]):
        words.value.add(name=word, number=value)
    made: dict[str, Any] = {}
    for full, fields in messages.items():
        outer, _, name = full.rpartition(".")
        message = made[full] = (made[outer].nested_type if outer else file.message_type).add(name=name)
        for text in fields:
            found = FIELD.fullmatch(text)
            assert found is not None, text
            kind, of_map, type_name, field, number = found.groups()
            if of_map:
                entry = message.nested_type.add(name=f"{field.title()}Entry")
                entry.options.map_entry = True
                _add(entry, package, "key", 1, "string", Field.LABEL_OPTIONAL)
                _add(entry, package, "value", 2, type_name, Field.LABEL_OPTIONAL)
                type_name = f"{full}.{entry.name}"
            many = kind == "repeated" or of_map
            label = Field.LABEL_REPEATED if many else Field.LABEL_OPTIONAL
            added = _add(message, package, field, int(number), type_name, label)
            if kind == "oneof":
                added.oneof_index = 0
                if not message.oneof_decl:
                    message.oneof_decl.add(name=CHOICES[full])
    return file


def _add(message: Any, package: str, name: str, number: int, type_name: str, label: Any) -> Any:
    field = message.field.add(name=name, number=number, label=label)
    if type_name[0].isupper():
        field.type = Field.TYPE_ENUM if type_name in ENUMS else Field.TYPE_MESSAGE
        field.type_name = f".{package}.{type_name}"
    else:
        field.type = Field.Type.Value(f"TYPE_{type_name.upper()}")
    return field


POOL = descriptor_pool.DescriptorPool()
MESSAGES: dict[str, Any] = {}
for _package, _messages, _enum in (
    ("inference", FIELDS, "DataType"), ("grpc.health.v1", HEALTH_FIELDS, "ServingStatus"),
):  # fmt: skip
    POOL.Add(_file(_package, _messages, _enum))
    for _name in _messages:
        MESSAGES[_name] = message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{_package}.{_name}"))
"""The classes by name; nested ones by both names with a dot between."""
