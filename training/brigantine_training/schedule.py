"""The budget of a run, and the values that change along it."""

import math
import re
from dataclasses import dataclass

from .config import GanConfig
from .errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """How long a run may train in all, resumed parts included. None: no such limit."""

    seconds: float | None
    steps: int | None

    def progress(self, seconds: float, steps: int) -> float:
        """Share of the budget that is spent, 0..1; of two budgets the one that is further spent."""
        spent = [0.0]
        if self.seconds is not None:
            spent.append(seconds / self.seconds)
        if self.steps is not None:
            spent.append(steps / self.steps)
        return min(max(spent), 1.0)


@dataclass(frozen=True)
class Rates:
    """The scheduled values of one step of a GAN."""

    learning_rate: float
    beta2: float
    gamma: float


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine, as progress goes from 0 to 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def rates_at(config: GanConfig, progress: float) -> Rates:
    """What `config` plans at `progress`, 0..1 of the budget."""
    final = config.learning_rate * config.learning_rate_final
    return Rates(
        learning_rate=cosine(config.learning_rate, final, progress),
        beta2=cosine(config.adam_beta2_start, config.adam_beta2_end, progress),
        gamma=cosine(config.gamma_start, config.gamma_end, progress),
    )


_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_seconds(text: str) -> float:
    """Seconds in "90", "90s", "10m", "1.5h" or "1h30m".

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m)?(?:(?P<s>[\d.]+)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise ConfigError(f"budget {text!r}: expected a duration such as 90s, 10m or 1h30m.")
    try:
        return sum(float(number) * _UNIT_SECONDS[unit] for unit, number in match.groupdict("0").items())
    except ValueError:
        raise ConfigError(f"budget {text!r}: expected a duration such as 90s, 10m or 1h30m.") from None


def format_seconds(seconds: float) -> str:
    """The same in words: "1h 04m 09s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m {rest:02d}s"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
