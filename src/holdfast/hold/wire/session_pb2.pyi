from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Refusal(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_UNSPECIFIED: _ClassVar[Refusal]
    UNKNOWN: _ClassVar[Refusal]
    EXPIRED: _ClassVar[Refusal]
    GAP: _ClassVar[Refusal]
    BUSY: _ClassVar[Refusal]
    VERSION: _ClassVar[Refusal]
    DRAINING: _ClassVar[Refusal]
    STRANGER: _ClassVar[Refusal]
REFUSAL_UNSPECIFIED: Refusal
UNKNOWN: Refusal
EXPIRED: Refusal
GAP: Refusal
BUSY: Refusal
VERSION: Refusal
DRAINING: Refusal
STRANGER: Refusal

class Terms(_message.Message):
    __slots__ = ("features", "limit", "largest_frame", "keep_ms", "heartbeat")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FRAME_FIELD_NUMBER: _ClassVar[int]
    KEEP_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    features: int
    limit: int
    largest_frame: int
    keep_ms: int
    heartbeat: bytes
    def __init__(self, features: _Optional[int] = ..., limit: _Optional[int] = ..., largest_frame: _Optional[int] = ..., keep_ms: _Optional[int] = ..., heartbeat: _Optional[bytes] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("versions", "nonce", "public_key", "terms", "transport_limit")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    nonce: bytes
    public_key: bytes
    terms: Terms
    transport_limit: int
    def __init__(self, versions: _Optional[_Iterable[int]] = ..., nonce: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., terms: _Optional[_Union[Terms, _Mapping]] = ..., transport_limit: _Optional[int] = ...) -> None: ...

class Location(_message.Message):
    __slots__ = ("address", "port")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    address: bytes
    port: int
    def __init__(self, address: _Optional[bytes] = ..., port: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "nonce", "public_key", "terms", "session_id", "instance_id", "epoch", "transport_limit", "location")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    version: int
    nonce: bytes
    public_key: bytes
    terms: Terms
    session_id: bytes
    instance_id: bytes
    epoch: int
    transport_limit: int
    location: Location
    def __init__(self, version: _Optional[int] = ..., nonce: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., terms: _Optional[_Union[Terms, _Mapping]] = ..., session_id: _Optional[bytes] = ..., instance_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., transport_limit: _Optional[int] = ..., location: _Optional[_Union[Location, _Mapping]] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("next", "first", "end", "limit")
    NEXT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    next: int
    first: int
    end: int
    limit: int
    def __init__(self, next: _Optional[int] = ..., first: _Optional[int] = ..., end: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("version", "nonce", "public_key", "session_id", "generation", "position", "heartbeat", "transport_limit")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    version: int
    nonce: bytes
    public_key: bytes
    session_id: bytes
    generation: int
    position: Position
    heartbeat: bytes
    transport_limit: int
    def __init__(self, version: _Optional[int] = ..., nonce: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., session_id: _Optional[bytes] = ..., generation: _Optional[int] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., heartbeat: _Optional[bytes] = ..., transport_limit: _Optional[int] = ...) -> None: ...

class ResumeOk(_message.Message):
    __slots__ = ("nonce", "public_key", "instance_id", "epoch", "position", "heartbeat", "transport_limit", "location")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    public_key: bytes
    instance_id: bytes
    epoch: int
    position: Position
    heartbeat: bytes
    transport_limit: int
    location: Location
    def __init__(self, nonce: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., instance_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., heartbeat: _Optional[bytes] = ..., transport_limit: _Optional[int] = ..., location: _Optional[_Union[Location, _Mapping]] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason", "retry_after_ms", "instance_id", "next")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    reason: Refusal
    retry_after_ms: int
    instance_id: bytes
    next: int
    def __init__(self, reason: _Optional[_Union[Refusal, str]] = ..., retry_after_ms: _Optional[int] = ..., instance_id: _Optional[bytes] = ..., next: _Optional[int] = ...) -> None: ...

class Proof(_message.Message):
    __slots__ = ("mac",)
    MAC_FIELD_NUMBER: _ClassVar[int]
    mac: bytes
    def __init__(self, mac: _Optional[bytes] = ...) -> None: ...

class Reset(_message.Message):
    __slots__ = ("code", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: int
    text: str
    def __init__(self, code: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reconnect_after_ms", "text")
    RECONNECT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    reconnect_after_ms: int
    text: str
    def __init__(self, reconnect_after_ms: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...
