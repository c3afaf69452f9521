"""Says which of a bundle's means are in use, and checks that it stores the requested one."""

from c2c_jax.errors import ConfigError
from c2c_jax.translator.bundle import Bundle

NO_IMAGE_MEAN = (
    "the translator stores no mean of pictures, so 4 to 18 % fewer pictures are matched correctly: "
    "add one with c2c calibrate RUN --images photos/"
)


def require_output_mean(bundle: Bundle, output_mean: str) -> None:
    """Raises ConfigError unless a bundle can un-centre translations with the mean of captions ("text") or of sounds
    ("audio"). A translator of uncentred vectors only allows "text", which has no effect on it."""
    if output_mean not in ("text", "audio"):
        raise ConfigError(f"--output-mean is {output_mean!r:.40}: pass text or audio")
    if output_mean == "audio" and bundle.spec.input_norm != "centred":
        raise ConfigError(
            "--output-mean audio is for translators of centred vectors; this one takes uncentred vectors: leave it out"
        )
    if output_mean == "audio" and bundle.gap.target_audio is None:
        raise ConfigError(
            "the translator stores no mean of sounds for --output-mean audio: add one with c2c calibrate --sounds"
        )


def in_use(bundle: Bundle, among: str = "text") -> list[str]:
    """Lines that say which means and which caption memory a bundle uses for pictures. among: see `translate`."""
    lines = []
    if bundle.spec.input_norm == "centred":
        has_mean = bundle.gap.source_image is not None
        lines = ["centring pictures with the mean stored in the translator" if has_mean else NO_IMAGE_MEAN]
        lines += ["un-centring results with the mean of sounds stored in the translator"] if among == "audio" else []
    elif bundle.gap.used:
        lines = [f"correcting the modality gap with stored means: {', '.join(bundle.gap.used)}"]
    return lines + ([f"{bundle.memory} in use"] if bundle.memory and bundle.memory.weight else [])
