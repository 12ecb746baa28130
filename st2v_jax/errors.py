"""What can go wrong for a user, by what they can do about it; commands show each as one line (cli/run.py)."""


class BadInput(Exception):
    """What was asked for cannot be done; the message is the one line that the user sees."""


class InputError(OSError):
    """A file or folder that is no video."""


class OutputError(OSError):
    """A place where no video can be written."""


class WeightsError(ValueError):
    """A folder that is not a model, or whose weights do not fit its config."""


class Failed(Exception):
    """What was asked for was begun and could not be finished; the message is the one line that the user sees."""


class TrainingError(Failed):
    """Training cannot go on, such as after a loss that is not finite."""
