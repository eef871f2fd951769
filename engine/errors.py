"""What can go wrong in the engine. Every message says what to do.

EngineError
├── ConfigurationError   the settings name something that cannot work
├── WeightsError         weights are missing, damaged or cannot be fetched
├── DeviceError          the device failed or has too little memory
├── ServerError          an engine elsewhere cannot be reached, refused, or vanished in the middle of a reply
├── NotAvailable         the weights that are loaded cannot do this
└── RequestError         this one request cannot be served
    ├── PromptTooLong    even the last turn alone does not fit
    ├── EngineClosing    the engine ends, and takes nothing new
    └── EngineBusy       the queue is full
        └── AskerBusy    … of this one person's requests
"""


class EngineError(Exception):
    """Base of all errors that the engine raises on purpose. `str(error)` may be shown to an admin."""


class ConfigurationError(EngineError):
    """The settings name something that cannot work."""


class WeightsError(EngineError):
    """Weights are missing, damaged or cannot be fetched."""


class DeviceError(EngineError):
    """The device failed, or the model does not fit into its memory."""


class ServerError(EngineError):
    """An engine on another machine cannot be reached, refused the request, or vanished in the middle of a reply."""


class NotAvailable(EngineError):
    """The weights that are loaded cannot do this. The text may be shown to people."""


class RequestError(EngineError):
    """This request cannot be served; others are not affected."""


class PromptTooLong(RequestError):
    """The persona's prompt and the last turn alone exceed the model's context."""


class EngineClosing(RequestError):
    """The engine is about to end, and takes nothing new."""


class EngineBusy(RequestError):
    """The queue is full."""


class AskerBusy(EngineBusy):
    """Whoever asks has as many requests open as one person may."""
