"""A voice for each source of the mini world: what one event of it sounds like."""

from collections.abc import Callable

from c2c_jax.miniworld.voices import animals, instruments, machines, weather
from c2c_jax.miniworld.voices.event import Event, Samples
from c2c_jax.miniworld.world import SOURCES

VOICES: dict[str, Callable[[Event], Samples]] = {
    source: next(getattr(room, source) for room in (animals, instruments, machines, weather) if hasattr(room, source))
    for source in SOURCES
}
