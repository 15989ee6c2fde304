"""The errors of modelops. A foreign exception is mapped to one of these where it enters (`raise … from`)."""


class ModelopsError(Exception):
    """Any error that is raised on purpose; its text is fit for a user."""

    exit_code = 3


class ConfigError(ModelopsError):
    """The configuration, a recipe or a command's arguments disagree with what is possible."""

    exit_code = 2


class StateError(ModelopsError):
    """The state cannot be used, or is asked for a change that it does not allow."""


class StateUnavailable(StateError):
    """The state's volume could not be used for a reason that may pass; nothing was changed."""


class DataError(ModelopsError):
    """Rows or labels cannot be read."""


class TooFewLabels(DataError):
    """There is not yet enough labelled data; waiting may help."""


class ColumnsMissing(DataError):
    """A table lacks columns that are asked for."""

    def __init__(self, message: str, columns: tuple[str, ...]) -> None:
        super().__init__(message)
        self.columns = columns


class InputsUnavailable(DataError):
    """A broker that has rows or labels does not answer; waiting may help."""


class ContractError(DataError):
    """The rows break the contract; the text is the report, `broken` the rules."""

    def __init__(self, message: str, broken: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.broken = broken


class TrainingError(ModelopsError):
    """No usable model came out of training."""


class ArtifactError(ModelopsError):
    """A stored model is not what was stored, or holds what is not allowed in one."""


class SidecarError(ModelopsError):
    """The sidecar did not take or give a profile. `recoverable`: trying again may help."""

    def __init__(self, message: str, *, recoverable: bool) -> None:
        super().__init__(message)
        self.recoverable = recoverable


class Refused(ModelopsError):
    """A webhook that is not taken: the HTTP status to answer, and the reason."""

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
