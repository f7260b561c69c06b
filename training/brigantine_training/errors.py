"""What can go wrong in training, each with a message that names the thing, what was expected and the remedy.

TrainingError
|-- ConfigError     a preset or a setting that cannot be used
|-- DataError       data that is missing or not what it should be
|-- RunError        a run folder that cannot be created, resumed or read
|-- DeviceError     a device that this machine does not have
|-- DivergedError   the numbers of a run are no longer finite
|-- ExportMismatch  the exported graph draws other images than the network does
`-- ScoringError    a model that cannot be judged as asked
"""


class TrainingError(Exception):
    """Anything that the user can mend; the command line prints its message without a traceback."""


class ConfigError(TrainingError):
    """A preset or a setting that cannot be used."""


class DataError(TrainingError):
    """Data that is missing or not what it should be."""


class RunError(TrainingError):
    """A run folder that cannot be created, resumed or read."""


class DeviceError(TrainingError):
    """A device that this machine does not have."""


class DivergedError(TrainingError):
    """The numbers of a run are no longer finite."""


class ExportMismatch(TrainingError):
    """The exported graph draws other images than the network does."""


class ScoringError(TrainingError):
    """A model that cannot be judged as asked."""
