"""Names of the files that the callbacks write each epoch, and of the keys that their pictures and tables have."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROUTING = "routing"  # what the keys of all views begin with


class View(StrEnum):
    """What of the routing is written each epoch: the beginning of the files' names.

    Attributes:
        HEATMAP: proportion of each class's images that each expert gets; table and picture.
        COACTIVATION: which experts are chosen together; table and picture.
        SIMILARITY: how alike the experts' readouts are; table and picture.
        CLASSES: how each class is routed, in full; table alone.
    """

    HEATMAP = "heatmap"
    COACTIVATION = "coactivation"
    SIMILARITY = "expert_similarity"
    CLASSES = "classes"

    @property
    def key(self) -> str:
        """The key under which loggers are given it."""
        return f"{ROUTING}/{self.value}"


PICTURED = (View.HEATMAP, View.COACTIVATION, View.SIMILARITY)


@dataclass(frozen=True)
class RoutingFolder:
    """The folder that the callbacks write into.

    Attributes:
        path: the folder, which may not exist yet.
    """

    path: Path

    def table(self, view: View, epoch: int) -> Path:
        """A view as numbers, after so many epochs."""
        return self.path / f"{view}_{epoch:04d}.csv"

    def picture(self, view: View, epoch: int) -> Path:
        """A view as a picture, after so many epochs."""
        return self.path / f"{view}_{epoch:04d}.png"

    def sets(self, epoch: int) -> Path:
        """Each image's set of experts, after so many epochs."""
        return self.path / f"sets_{epoch:04d}.npy"

    @property
    def saturation(self) -> Path:
        """How many images have the set of the epoch before, and of the end: a row an epoch."""
        return self.path / "saturation.csv"

    def pictures(self, epoch: int) -> dict[View, Path]:
        """The pictures that there are of an epoch."""
        files = {view: self.picture(view, epoch) for view in PICTURED}
        return {view: file for view, file in files.items() if file.exists()}

    def newest_pictures(self) -> list[Path]:
        """The last picture of each view that has any."""
        return [file for view in PICTURED for file in sorted(self.path.glob(f"{view}_*.png"))[-1:]]
