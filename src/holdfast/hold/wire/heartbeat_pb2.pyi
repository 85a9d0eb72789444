from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Terms(_message.Message):
    __slots__ = ("can_ms", "want_ms")
    CAN_MS_FIELD_NUMBER: _ClassVar[int]
    WANT_MS_FIELD_NUMBER: _ClassVar[int]
    can_ms: int
    want_ms: int
    def __init__(self, can_ms: _Optional[int] = ..., want_ms: _Optional[int] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("id", "next", "limit")
    ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    id: int
    next: int
    limit: int
    def __init__(self, id: _Optional[int] = ..., next: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("id", "next", "limit", "slower_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SLOWER_MS_FIELD_NUMBER: _ClassVar[int]
    id: int
    next: int
    limit: int
    slower_ms: int
    def __init__(self, id: _Optional[int] = ..., next: _Optional[int] = ..., limit: _Optional[int] = ..., slower_ms: _Optional[int] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("terms", "ping", "pong")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    terms: Terms
    ping: Ping
    pong: Pong
    def __init__(self, terms: _Optional[_Union[Terms, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ...) -> None: ...
