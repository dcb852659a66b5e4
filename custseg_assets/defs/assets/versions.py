"""The asset that exports promoted models to a repository with DVC, and its job.

What is exported, and how, belongs in ``home.model_exports``.
"""

from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as Job

from custseg_assets.defs.descriptions import ASSETS as DESCRIPTIONS
from custseg_assets.defs.descriptions import JOBS
from custseg_assets.defs.materialise import OWNERS
from custseg_assets.home.kept_models import LINES, MADE, MADE_FROM
from custseg_assets.home.model_exports import due_exports, export_model, repository_of
from custseg_assets.home.open import LockedHome
from custseg_assets.home.plan import EXPORT
from custseg_assets.settings import Settings


def version_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets that ``[versions]`` in the settings adds to the graph."""
    return [_exports_asset()] if settings.versions.dvc else []


def version_jobs(settings: Settings) -> list[Job]:
    """The jobs that ``[versions]`` in the settings adds."""
    if not settings.versions.dvc:
        return []
    return [dg.define_asset_job(EXPORT, ["exported_models"], description=JOBS[EXPORT])]


def _exports_asset() -> dg.AssetsDefinition:
    @dg.asset(
        group_name="release",
        owners=OWNERS,
        kinds={"git"},
        code_version="1",
        description=DESCRIPTIONS["exported_models"],
        deps=[LINES, *MADE_FROM, *MADE],
    )
    def exported_models(
        context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]
    ) -> dg.MaterializeResult[Any]:
        """Every promoted model in the repository, tagged."""
        repository = repository_of(home.settings.versions)
        tags = {}
        for model_version in due_exports(home):
            exported = export_model(home, model_version, repository)
            tags[exported.tag] = exported.commit
            context.log.info("%s: %s", exported.tag, exported.commit)
        return dg.MaterializeResult(
            metadata={
                "repository": dg.MetadataValue.path(str(repository.folder)),
                "exported": dg.MetadataValue.json(tags),
            }
        )

    return exported_models
