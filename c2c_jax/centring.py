"""The means that a bundle centres with: which are in use, in words, and whether one that is asked for is there."""

from c2c_jax.errors import ConfigError
from c2c_jax.weights.translator import Bundle

NO_IMAGE_MEAN = (
    "the translator stores no mean of pictures, without which about a tenth fewer pictures find what they should: "
    "c2c calibrate RUN --images photos/ adds one"
)


def require_output_mean(bundle: Bundle, output_mean: str) -> None:
    """Raises ConfigError where a bundle cannot un-centre translations by the mean of captions ("text") or of sounds
    ("audio"). With "text" a translator of uncentred vectors works as always."""
    if output_mean not in ("text", "audio"):
        raise ConfigError(f"--output-mean is {output_mean!r:.40}: pass text or audio")
    if output_mean == "audio" and bundle.spec.input_norm != "centred":
        raise ConfigError(
            "--output-mean audio is for translators of centred vectors, which this one is not: leave it out"
        )
    if output_mean == "audio" and bundle.gap.target_audio is None:
        raise ConfigError("the translator stores no mean of sounds for --output-mean: add it by c2c calibrate --sounds")


def in_use(bundle: Bundle, among: str = "text") -> list[str]:
    """How pictures' vectors reach and leave a bundle's translator, in lines for people. among: see `translate`."""
    lines = []
    if bundle.spec.input_norm == "centred":
        has_mean = bundle.gap.source_image is not None
        lines = ["centring pictures with the mean stored in the translator" if has_mean else NO_IMAGE_MEAN]
        lines += ["un-centring results with the mean of sounds stored in the translator"] if among == "audio" else []
    elif bundle.gap.used:
        lines = [f"gap statistics of the bundle in use: {', '.join(bundle.gap.used)}"]
    return lines + ([f"{bundle.memory} in use"] if bundle.memory and bundle.memory.share else [])
