"""The one tree of errors: what the user can mend (exit code 2), what the wire refuses, what may be retried."""


class YellowFinError(Exception):
    """Everything this project raises on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1


class UserError(YellowFinError):
    """Something the user can mend: the sentence says expected, got, where and what to do."""

    exit_code = 2


class ConfigurationError(UserError):
    """An experiment file or option is wrong."""


class DataError(UserError):
    """A data set is missing, incomplete or damaged."""


class TaskError(UserError):
    """The user's own task raised; the cause carries the user's traceback."""


class AddressError(UserError):
    """An address cannot be bound or reached."""


class LayoutError(UserError):
    """A model does not match the one the server holds."""


class CheckpointError(UserError):
    """A checkpoint cannot be written, read or continued from."""


class SharedMemoryError(UserError):
    """Shared memory cannot be reserved or attached."""


class WireError(YellowFinError):
    """A message that does not follow the protocol: names the field, what was expected and what came."""


class RefusedError(YellowFinError):
    """The server refused a message and a repetition would be refused too."""


class ServerLostError(YellowFinError):
    """No answer within the patience given; the same request may be sent again (retryable)."""
