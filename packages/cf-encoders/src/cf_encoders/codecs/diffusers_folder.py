"""An autoencoder in diffusers' format: config.json and weights in one folder, local or on the hub."""

from pathlib import Path
from typing import Any

from cf_encoders.located import needs


def find_config(kind: str, path: Path | str, subfolder: str | None = None) -> dict[str, Any]:
    """config.json as it is written; ValueError when it is not one of a `kind` (a class of diffusers).

    `path`: a local folder, or a hub id. `subfolder`: "vae" for a whole pipeline. Only the config is downloaded.
    FileNotFoundError when there is none, ImportError with the install command when diffusers is missing.
    """
    autoencoder = getattr(needs("diffusers", "diffusers"), kind)
    place = f"{path}/{subfolder}" if subfolder else f"{path}"
    if Path(path).is_dir() and not (Path(place) / "config.json").is_file():
        raise FileNotFoundError(
            f"no {kind} in {place}: config.json missing; for a whole pipeline name its vae folder"
        )
    try:
        config = autoencoder.load_config(path, subfolder=subfolder)
    except OSError as error:  # a broken file, or the hub's: diffusers' own text for both, over several lines
        raise FileNotFoundError(f"no {kind} in {place}, here or on the hub: {first_line(error)}") from error
    held = config.get("_class_name")
    if held != kind:
        raise ValueError(f"{place} holds {an(held)}, not {an(kind)}")
    return config


def load_autoencoder(kind: str, path: Path | str, subfolder: str | None = None) -> Any:
    """The network with all its weights, in float32 on the CPU.

    Raises what `find_config` does, FileNotFoundError for no weights, and ValueError naming those that are missing,
    unexpected or misshapen: diffusers would draw the missing ones at random and only log it.
    """
    find_config(kind, path, subfolder)
    autoencoder = getattr(needs("diffusers", "diffusers"), kind)
    try:
        # low_cpu_mem_usage would need accelerate, for a model that is small anyhow
        network, report = autoencoder.from_pretrained(
            path, subfolder=subfolder, output_loading_info=True, low_cpu_mem_usage=False
        )
    except OSError as error:
        raise FileNotFoundError(f"no weights of {an(kind)} in {path}: {first_line(error)}") from error
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its config.json: {error}") from error
    for what in ("missing", "unexpected", "mismatched"):
        if names := report[f"{what}_keys"]:
            raise ValueError(
                f"the weights in {path} do not fit its config.json; {what}: {', '.join(map(str, names))}"
            )
    return network.float()


def an(kind: str | None) -> str:
    """`AutoencoderKL` -> `an AutoencoderKL`; None, of a config.json without a class, -> words for that"""
    if kind is None:
        return "no model of diffusers"
    return f"{'an' if kind[0] in 'AEIO' else 'a'} {kind}"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
