"""Puts what run time needs of data/ and assets/ into the wheel (a checkout has the folders)."""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = ("data", "assets/demos")


class ShipData(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "editable":
            return
        for folder in SHIPPED:
            if (Path(self.root) / folder).is_dir():
                build_data["force_include"][folder] = f"sdlib/_shipped/{folder}"
