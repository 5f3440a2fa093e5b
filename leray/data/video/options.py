"""How frames are compressed: the options, and what each encoder calls them."""

from dataclasses import dataclass

from leray.errors import ConfigError

SOFTWARE = {
    "libsvtav1": "libsvtav1",
    "h264": "libx264",
    "hevc": "libx265",
    "libx264": "libx264",
    "libx265": "libx265",
}
"""Values of `vcodec` that run on the processor, and their encoders in FFmpeg."""

HARDWARE = (
    "h264_nvenc",
    "hevc_nvenc",
    "h264_videotoolbox",
    "hevc_videotoolbox",
    "h264_qsv",
    "h264_vaapi",
)
"""Values of `vcodec` that need a device, in the order in which `auto` tries them."""

AUTO = "auto"

_VCODECS = (*SOFTWARE, *HARDWARE, AUTO)
_AV1_PRESET = 12
_AV1_SLOWEST, _AV1_FASTEST = 0, 13
_X26X_PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)
_FF_QP2LAMBDA = 118
"""FFmpeg's unit of the generic quality option."""


@dataclass(frozen=True)
class VideoOptions:
    """How frames become an mp4; LeRobot's names and defaults.

    Frames are never reordered in the file (no B-frames): any frame can end a piece that is cut
    without re-encoding, and at the default key frame distance nothing is gained by them.

    Raises:
        ConfigError: a value is not allowed; one line says which are.
    """

    vcodec: str = "libsvtav1"
    """Encoder: libsvtav1 (AV1), h264, hevc, a hardware encoder (h264_nvenc, hevc_nvenc,
    h264_videotoolbox, hevc_videotoolbox, h264_qsv, h264_vaapi), or `auto`: the first hardware
    encoder that works on this machine, else libsvtav1."""
    pix_fmt: str = "yuv420p"
    """Pixel format of the file, in FFmpeg's spelling."""
    g: int = 2
    """Distance of key frames, in frames: low for fast random access, high for small files."""
    crf: int = 30
    """Constant quality, low is better: 1 to 63 for libsvtav1 and auto, 0 to 51 for the others."""
    preset: int | str | None = None
    """Effort: 0 (slow) to 13 (fast) for libsvtav1, 12 when None; ultrafast to placebo for h264 and
    hevc."""
    fast_decode: int = 0
    """1 or 2 make a file that is decoded faster, at some cost in quality; software encoders
    only."""

    def __post_init__(self) -> None:
        if self.vcodec not in _VCODECS:
            raise ConfigError(f"vcodec {self.vcodec!r} is unknown; one of {', '.join(_VCODECS)}")
        is_av1 = self.vcodec in ("libsvtav1", AUTO)
        lowest, highest = (1, 63) if is_av1 else (0, 51)
        _check_range("g", self.g, 1, 2**15)
        _check_range("crf", self.crf, lowest, highest, self.vcodec)
        if self.vcodec in HARDWARE:
            if self.preset is not None or self.fast_decode != 0:
                raise ConfigError(f"{self.vcodec} takes neither preset nor fast_decode; drop them")
            return
        _check_range("fast_decode", self.fast_decode, 0, 2)
        if self.preset is None:
            return
        if is_av1:
            _check_range("preset", self.preset, _AV1_SLOWEST, _AV1_FASTEST, self.vcodec)
        elif self.preset not in _X26X_PRESETS:
            raise ConfigError(
                f"preset {self.preset!r} is not for {self.vcodec}; "
                f"one of {', '.join(_X26X_PRESETS)}"
            )

    def encoder_options(self, encoder: str) -> dict[str, str]:
        """Return these options in the terms of an encoder of FFmpeg.

        Args:
            encoder: a value of `SOFTWARE`, or one of `HARDWARE`.
        """
        if encoder == "libsvtav1":
            preset = _AV1_PRESET if self.preset is None else self.preset
            options = {"crf": str(self.crf), "preset": str(preset)}
            if self.fast_decode:
                options["svtav1-params"] = f"fast-decode={self.fast_decode}"
        else:
            options = {"bf": "0", **self._quality(encoder)}
        return {"g": str(self.g), **options}

    def _quality(self, encoder: str) -> dict[str, str]:
        crf = min(self.crf, 51)
        kind = encoder.partition("_")[2]
        if kind == "nvenc":
            return {"rc": "vbr", "cq": str(crf)}
        if kind == "vaapi":
            return {"rc_mode": "CQP", "qp": str(crf)}
        if kind == "qsv":
            return {"global_quality": str(max(crf, 1))}
        if kind == "videotoolbox":
            # Its scale runs the other way, from 1 to 100.
            quality = max(1, round(100 * (1 - crf / 51)))
            return {"flags": "+qscale", "global_quality": str(_FF_QP2LAMBDA * quality)}
        options = {"crf": str(crf)}
        if self.preset is not None:
            options["preset"] = str(self.preset)
        if self.fast_decode:
            options["tune"] = "fastdecode"
        if encoder == "libx265":
            options["x265-params"] = "log-level=error:open-gop=0"
        return options


def _check_range(name: str, value: object, low: int, high: int, vcodec: str = "") -> None:
    if type(value) is not int or not low <= value <= high:
        place = f" for {vcodec}" if vcodec else ""
        raise ConfigError(
            f"video option {name} must be an integer from {low} to {high}{place}, not {value!r}"
        )
