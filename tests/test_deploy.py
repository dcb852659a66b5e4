"""What deploys custseg to Google Cloud: the Terraform files, what they grant, and the workflow. No cloud is asked."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from custseg_assets.settings import load_settings
from tests.support.files import REPOSITORY
from tests.support.permissions import OF_A_PERSON, documented_calls
from tests.support.terraform import FOLDER, blocks, parsed, resources

pytest.importorskip("hcl2", reason="python-hcl2 is not installed here")

GRANTED = {
    # account: (role, what it is granted on)
    "pipeline": {
        ("roles/storage.objectUser", "google_storage_bucket.home"),
        ("roles/storage.objectUser", "google_storage_bucket.jobs"),
        ("roles/bigquery.dataEditor", "google_bigquery_dataset.segments"),
        ("roles/bigquery.dataViewer", "each.value"),
        ("roles/bigquery.jobUser", "project"),
        ("roles/bigquery.readSessionUser", "project"),
        ("google_project_iam_custom_role.batch_starter", "project"),
        ("roles/iam.serviceAccountUser", "google_service_account.spark"),
        ("google_project_iam_custom_role.training_starter", "project"),
        ("roles/iam.serviceAccountUser", "google_service_account.trainer"),
        ("roles/artifactregistry.reader", "google_artifact_registry_repository.images"),
        ("roles/logging.logWriter", "project"),
    },
    "trainer": {
        ("roles/storage.objectUser", "google_storage_bucket.jobs"),
        ("roles/logging.logWriter", "project"),
    },
    "spark": {
        ("roles/dataproc.worker", "project"),
        ("roles/storage.objectUser", "google_storage_bucket.jobs"),
        ("roles/storage.objectViewer", "google_storage_bucket.home if condition"),
        ("roles/artifactregistry.reader", "google_artifact_registry_repository.images"),
    },
    "service": {
        ("roles/storage.objectViewer", "google_storage_bucket.home if condition"),
        ("roles/storage.objectCreator", "google_storage_bucket.home if condition"),
        ("roles/secretmanager.secretAccessor", "google_secret_manager_secret.api_keys"),
    },
    "deployer": {
        ("roles/artifactregistry.writer", "google_artifact_registry_repository.images"),
        ("roles/run.developer", "google_cloud_run_v2_service.service"),
        ("roles/iam.serviceAccountUser", "google_service_account.service"),
        ("google_project_iam_custom_role.restarter", "google_compute_instance.pipeline"),
        ("google_project_iam_custom_role.operation_watcher", "project"),
    },
    "github": {("roles/iam.workloadIdentityUser", "google_service_account.deployer")},
    "each.value": {
        ("roles/run.invoker", "google_cloud_run_v2_service.service"),
        ("roles/iap.tunnelResourceAccessor", "google_compute_instance.pipeline"),
        ("roles/compute.osLogin", "google_compute_instance.pipeline"),
        ("roles/iam.serviceAccountUser", "google_service_account.pipeline"),
        ("google_project_iam_custom_role.visitor", "project"),
        ("roles/logging.viewer", "project"),
    },
}
"""Everything that anybody is granted, and docs/gcp.md explains each; a role that is not listed here fails a test."""

_TARGETS = (
    "bucket",
    "dataset_id",
    "repository",
    "secret_id",
    "service_account_id",
    "instance_name",
    "instance",
    "name",
)


def grants() -> dict[str, set[tuple[str, str]]]:
    """Who → role, and what it is granted on."""
    found: dict[str, set[tuple[str, str]]] = {}
    for address, body in resources().items():
        kind = address.partition(".")[0]
        if not kind.endswith(("_iam_member", "_iam_binding", "_iam_policy")):
            continue
        assert kind.endswith("_iam_member"), f"{address} would take away what others granted"
        member = str(body["member"])
        account = re.search(r"google_service_account\.(\w+)(?:\[0\])?\.member", member)
        who = account[1] if account else "github" if "principalSet" in member else "each.value"
        found.setdefault(who, set()).add((reference(body["role"]), target_of(kind, body)))
    return found


def target_of(kind: str, body: dict[str, Any]) -> str:
    if kind == "google_project_iam_member":
        return "project"
    given = next(str(body[name]) for name in _TARGETS if name in body)
    return reference(given) + (" if condition" if "condition" in body else "")


def reference(text: str) -> str:
    """``google_x.name`` of an expression that refers to one; the text of any other."""
    found = re.search(r"(google_\w+\.\w+)", text) or re.search(r"(each\.value)", text)
    return found[1] if found else text


def test_nobody_is_granted_more_than_is_listed() -> None:
    assert grants() == GRANTED


@pytest.mark.parametrize("word", ["roles/owner", "roles/editor", "Admin", "admin", "allUsers", "private_key"])
def test_no_role_is_broad_and_no_key_is_made(word: str) -> None:
    for name, content in parsed():
        said = re.sub(r"'description': '[^']*'", "", str(content))
        assert word not in said, name
    assert not any(address.startswith("google_service_account_key") for address in resources())


def test_a_broader_role_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    accounts = tmp_path / "accounts.tf"
    accounts.write_text(accounts.read_text().replace("roles/storage.objectViewer", "roles/storage.objectUser"))
    monkeypatch.setattr("tests.support.terraform.FOLDER", tmp_path)
    assert grants() != GRANTED


def test_only_what_passed_to_jobs_and_back_is_deleted_with_time() -> None:
    """The models' files lie in the same bucket, and a version that is deployed again needs them."""
    from custseg_assets.settings import GcpSettings

    [rule] = resources()["google_storage_bucket.jobs"]["lifecycle_rule"]
    [condition] = rule["condition"]
    assert condition["matches_prefix"] == [f"{GcpSettings().prefix}/jobs/"]


def test_every_reference_leads_somewhere() -> None:
    known = set(resources()) | {f"var.{name}" for block in blocks("variable") for name in block}
    known |= {f"local.{name}" for block in blocks("locals") for name in block}
    for name, content in parsed():
        found = set(re.findall(r"\b(google_\w+\.\w+|var\.\w+|local\.\w+)", str(content)))
        assert found - known == set(), name


def test_every_variable_is_used_and_described() -> None:
    text = "".join(path.read_text() for path in FOLDER.glob("*.tf"))
    for block in blocks("variable"):
        for name, body in block.items():
            assert f"var.{name}" in text
            assert body["description"]


SETTINGS = {
    "project": "shop-1",
    "region": "europe-west1",
    "jobs": "shop-1-custseg-jobs",
    "home_uri": "gs://shop-1-custseg-home/home",
    "dataset": "customer_segments",
    "trainer": "custseg-trainer@shop-1.iam.gserviceaccount.com",
    "image": "europe-west1-docker.pkg.dev/shop-1/custseg/trainer:production",
    "dataproc_image": "europe-west1-docker.pkg.dev/shop-1/custseg/dataproc:production",
    "dataproc_min_lines": "70000000",
    "dataproc_max_cost": "2.5",
    "spark": "custseg-spark@shop-1.iam.gserviceaccount.com",
    "subnetwork": "custseg-batches",
}
"""What the template of the pipeline's settings is given."""
NO_BATCHES = {**SETTINGS, "dataproc_image": ""}


def filled_in(values: dict[str, str]) -> str:
    """The template of the pipeline's settings as Terraform fills it in."""
    template = (FOLDER / "custseg.toml").read_text()
    part = re.compile(r'%\{ if (\w+) != "" ~\}\n(.*?)%\{ endif ~\}\n', re.DOTALL)
    chosen = part.sub(lambda found: found[2] if values[found[1]] else "", template)
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], chosen)


@pytest.mark.parametrize("values", [SETTINGS, NO_BATCHES], ids=["with batches", "without"])
def test_the_pipelines_settings_are_ones_that_custseg_takes(values: dict[str, str], tmp_path: Path) -> None:
    template = (FOLDER / "custseg.toml").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", template)) == set(values)
    given = re.search(r"custseg\.toml\", \{(.*?)\n      \}\)", (FOLDER / "pipeline.tf").read_text(), re.DOTALL)
    assert given
    assert set(re.findall(r"^ +(\w+) +=", given[1], re.MULTILINE)) == set(values)
    path = tmp_path / "custseg.toml"
    path.write_text(filled_in(values))
    gcp = load_settings(path, home=tmp_path, environment={}).gcp
    assert (gcp.storage.uri, gcp.bigquery.dataset) == (values["home_uri"], "customer_segments")
    assert gcp.storage.tables
    batches = gcp.dataproc
    if values is NO_BATCHES:
        assert batches == type(batches)()
    else:
        assert (batches.image, batches.min_lines, batches.max_cost) == (values["dataproc_image"], 70_000_000, 2.5)
        assert (batches.service_account, batches.subnetwork) == (values["spark"], "custseg-batches")


@pytest.mark.parametrize("values", [SETTINGS, NO_BATCHES], ids=["with batches", "without"])
def test_terraform_fills_the_settings_in_likewise(values: dict[str, str], tmp_path: Path) -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed here")
    shutil.copy(FOLDER / "custseg.toml", tmp_path)
    # Where there are no batches, their account and network are null.
    absent = {"spark", "subnetwork"} if values is NO_BATCHES else set()
    given = ", ".join(f"{name} = {'null' if name in absent else json.dumps(value)}" for name, value in values.items())
    said = subprocess.run(
        [terraform, "console"],
        input=f'templatefile("custseg.toml", {{{given}}})',
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"<<EOT\n{filled_in(values)}\nEOT" in said.stdout


def test_of_batches_nothing_is_there_unless_an_image_is_named() -> None:
    """Accounts and networks cost nothing; batches do, and who may start them is nobody then."""
    of_batches = [address for address in resources() if re.search(r"\b(spark|batch)|_(batches|spark)$", address)]
    assert len(of_batches) == 10
    for address in of_batches:
        assert resources()[address]["count"] == "${local.has_batches ? 1 : 0}", address
    [image] = [block["dataproc_image"] for block in blocks("variable") if "dataproc_image" in block]
    assert image["default"] == ""
    assert {"has_batches": '${var.dataproc_image != ""}'} in [unmarked(block) for block in blocks("locals")]
    enabled = str(resources()["google_project_service.used"]["for_each"])
    assert re.search(r"local\.has_batches \? \[.?\"dataproc\.googleapis\.com\"\] : \[\]", enabled), enabled


def unmarked(block: dict[str, Any]) -> dict[str, Any]:
    return {name: value.replace('\\"', '"') if isinstance(value, str) else value for name, value in block.items()}


def test_machines_of_a_batch_reach_google_and_each_other_and_nobody_else() -> None:
    from custseg_assets.settings import GcpSettings

    made = resources()
    network, rule = made["google_compute_subnetwork.batches"], made["google_compute_firewall.batches"]
    assert network["private_ip_google_access"] is True
    # Google keeps four addresses of a network; the driver is a machine, too.
    addresses = ipaddress.ip_network(network["ip_cidr_range"])
    assert addresses.num_addresses - 4 > GcpSettings().dataproc.max_executors
    assert not addresses.overlaps(ipaddress.ip_network(made["google_compute_subnetwork.custseg"]["ip_cidr_range"]))
    within = ["${google_compute_subnetwork.batches[0].ip_cidr_range}"]
    assert (rule["source_ranges"], rule["destination_ranges"]) == (within, within)
    assert [allowed["protocol"] for allowed in rule["allow"]] == ["all"]


def test_every_service_that_is_asked_is_enabled() -> None:
    enabled = set(re.findall(r"(\w+)\.googleapis\.com", str(resources()["google_project_service.used"]["for_each"])))
    asked = {"aiplatform", "bigquery", "bigquerystorage", "dataproc", "storage", "artifactregistry"}
    assert asked <= enabled
    # As many addresses as there are in [gcp.endpoints].
    from custseg_assets.settings import GcpEndpointSettings

    assert len(asked) == len(GcpEndpointSettings.model_fields)


def test_the_settings_that_the_documentation_shows_are_ones_that_custseg_takes(tmp_path: Path) -> None:
    shown = re.search(r"```toml\n(.*?)```", (REPOSITORY / "docs" / "gcp.md").read_text(), re.DOTALL)
    assert shown
    path = tmp_path / "custseg.toml"
    path.write_text(shown[1].replace('"…"', '"abc"'))
    gcp = load_settings(path, environment={}).gcp
    assert gcp.training.image
    assert gcp.serving.endpoint
    assert gcp.bigquery.dataset


def test_what_the_template_of_the_machine_needs_is_what_it_is_given() -> None:
    template = (FOLDER / "cloud-init.yaml").read_text()
    machine = resources()["google_compute_instance.pipeline"]["metadata"]
    for name in re.findall(r"\$\{(?:indent\(6, )?(\w+)\)?\}", template):
        assert f"{name} " in (FOLDER / "pipeline.tf").read_text(), name
    assert "cloud-init.yaml" in str(machine)
    files = yaml.safe_load(template.replace("${indent(6, settings)}", "x"))["write_files"]
    assert [file["path"] for file in files] == ["/etc/custseg/custseg.toml", "/etc/systemd/system/custseg.service"]


def test_the_workflow_has_no_key_and_pushes_every_image_that_is_run() -> None:
    text = (REPOSITORY / ".github/workflows/deploy.yml").read_text()
    workflow = yaml.safe_load(text)
    job = workflow["jobs"]["deploy"]
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    assert "secrets." not in text
    for step in job["steps"]:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{'0' * 40}")), step
    run = set(re.findall(r"\$\{local\.images\}/([\w-]+):", "".join(path.read_text() for path in FOLDER.glob("*.tf"))))
    pushed = re.search(r"for target in ([\w -]+); do", text)
    assert pushed
    assert run == set(pushed[1].split())
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE))
    assert run <= targets


def test_only_the_deploy_workflow_of_this_repository_in_its_environment_is_the_deployer() -> None:
    provider = resources()["google_iam_workload_identity_pool_provider.github"]
    for said in (
        "assertion.repository_id == '${var.github_repository_id}'",
        "/.github/workflows/deploy.yml@refs/heads/main'",
        "assertion.environment == 'production'",
    ):
        assert said in str(provider["attribute_condition"])
    member = resources()["google_service_account_iam_member.github_is_deployer"]["member"]
    assert member.endswith("/attribute.repository_id/${var.github_repository_id}")
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/deploy.yml").read_text())
    assert workflow["jobs"]["deploy"]["environment"] == "production"


def test_nothing_is_deployed_before_the_tests_of_the_same_commit() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/deploy.yml").read_text())
    # YAML 1.1 takes `on` for true.
    assert workflow[True] == {"push": {"branches": ["main"]}}
    assert workflow["jobs"]["deploy"]["needs"] == "ci"
    assert workflow["jobs"]["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())[True]


@pytest.mark.parametrize(("content", "is_made"), [(b"", True), (b"\0" * 1080 + b"damaged", False)])
def test_only_a_disk_that_was_never_written_to_gets_a_file_system(
    tmp_path: Path, content: bytes, *, is_made: bool
) -> None:
    """The command of the machine's service, with a file as the disk and what makes a file system in its place."""
    template = (FOLDER / "cloud-init.yaml").read_text().replace("${indent(6, settings)}", "x")
    service = yaml.safe_load(template)["write_files"][1]["content"]
    [command] = re.findall(r'ExecStartPre=/bin/sh -c "(blkid .*)"', service)
    disk = tmp_path / "disk"
    disk.write_bytes(content.ljust(1 << 20, b"\0"))
    (tmp_path / "blkid").write_text("#!/bin/sh\nexit 2\n")
    (tmp_path / "mkfs.ext4").write_text(f"#!/bin/sh\ntouch {tmp_path}/made\n")
    for name in ("blkid", "mkfs.ext4"):
        (tmp_path / name).chmod(0o755)
    # systemd takes one of two backslashes.
    said = command.replace("/dev/disk/by-id/google-home", str(disk)).replace("\\\\", "\\")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", said], env=environment, capture_output=True, check=False)
    assert (tmp_path / "made").exists() == is_made
    assert (done.returncode == 0) == is_made


PERMISSIONS = {
    # Of Google's roles, what is needed of them here.
    "roles/storage.objectUser": {
        *(f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list", "update")),
        *(f"storage.multipartUploads.{verb}" for verb in ("abort", "create")),
    },
    "roles/storage.objectViewer": {"storage.objects.get", "storage.objects.list"},
    "roles/storage.objectCreator": {"storage.objects.create", "storage.multipartUploads.create"},
    "roles/bigquery.dataEditor": {
        *(f"bigquery.tables.{verb}" for verb in ("create", "delete", "get", "getData", "update", "updateData")),
    },
    "roles/bigquery.dataViewer": {"bigquery.tables.get", "bigquery.tables.getData"},
    "roles/bigquery.jobUser": {"bigquery.jobs.create"},
    "roles/bigquery.readSessionUser": {f"bigquery.readsessions.{verb}" for verb in ("create", "getData", "update")},
    "roles/dataproc.worker": {"dataproc.agents.create", "dataproc.tasks.lease", "logging.logEntries.create"},
    "roles/iam.serviceAccountUser": {"iam.serviceAccounts.actAs"},
    "roles/iam.workloadIdentityUser": {"iam.serviceAccounts.getAccessToken"},
    "roles/artifactregistry.reader": {"artifactregistry.repositories.downloadArtifacts"},
    "roles/artifactregistry.writer": {
        "artifactregistry.repositories.downloadArtifacts",
        "artifactregistry.repositories.uploadArtifacts",
    },
    "roles/logging.logWriter": {"logging.logEntries.create"},
    "roles/logging.viewer": {"logging.logEntries.list"},
    "roles/secretmanager.secretAccessor": {"secretmanager.versions.access"},
    "roles/run.developer": {"run.services.get", "run.services.update"},
    "roles/run.invoker": {"run.routes.invoke"},
    "roles/iap.tunnelResourceAccessor": {"iap.tunnelInstances.accessViaIAP"},
    "roles/compute.osLogin": {"compute.instances.osLogin"},
}
WITHOUT_A_GRANT = {
    # Whoever started a job may look at it.
    "bigquery.jobs.get",
}
NEVER_ASKED_FOR = {"storage.buckets.get", "storage.objects.update", "bigquery.datasets.get", "bigquery.tables.list"}
NEVER_ASKED_FOR |= {"dataproc.batches.delete", "dataproc.operations.get"}
NEVER_ASKED_FOR |= {
    f"{one}.{verb}" for one in ("storage.buckets", "bigquery.datasets") for verb in ("create", "delete")
}
"""What the fakes know, and no role here allows."""


def permissions_of(role: str) -> set[str]:
    if role.startswith("roles/"):
        return PERMISSIONS[role]
    return {str(permission) for permission in resources()[role]["permissions"]}


def test_every_call_that_is_documented_is_granted_at_the_level_where_it_is_checked() -> None:
    rows = documented_calls()
    assert len(rows) > 30
    granted = grants()
    for account, call, permission, level in rows:
        if permission in WITHOUT_A_GRANT:
            continue
        who = {"operators": "each.value", "callers": "each.value"}.get(account, account)
        levels = {level, "project"} if level == "project" else {level, f"{level} if condition", "project"}
        held = {found for role, target in granted[who] if target in levels for found in permissions_of(role)}
        assert permission in held, (account, call, level)


def test_nothing_is_granted_that_no_call_needs() -> None:
    needed = {permission for _, _, permission, _ in documented_calls()} | NEVER_ASKED_FOR
    for who, held in grants().items():
        for role, _ in held:
            assert permissions_of(role) & needed, (who, role)
            if not role.startswith("roles/"):
                assert permissions_of(role) <= needed, (who, role)


def test_every_permission_that_the_fakes_check_is_documented() -> None:
    folder = REPOSITORY / "tests" / "support" / "fakes"
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    checked = set(
        re.findall(r'"((?:storage|bigquery|aiplatform|dataproc|iam)\.(?!googleapis)[a-zA-Z]+\.[a-zA-Z]+)"', text)
    )
    assert len(checked) > 25
    documented = {permission for _, _, permission, _ in documented_calls()}
    assert {one for one in checked - documented - NEVER_ASKED_FOR if not OF_A_PERSON.match(one)} == set()


def test_the_workflow_may_do_what_it_does() -> None:
    """Each command of the workflow on Google Cloud, and the grant of the deployer that it needs."""
    text = (REPOSITORY / ".github/workflows/deploy.yml").read_text()
    needs = {
        "docker push": ("roles/artifactregistry.writer", "google_artifact_registry_repository.images"),
        "gcloud run services update custseg": ("roles/run.developer", "google_cloud_run_v2_service.service"),
        "gcloud compute instances reset custseg-pipeline": (
            "google_project_iam_custom_role.restarter",
            "google_compute_instance.pipeline",
        ),
    }
    for command, grant in needs.items():
        assert command in text
        assert grant in grants()["deployer"]


def test_terraform_finds_the_files_well_formed() -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed here")
    checked = subprocess.run(
        [terraform, "fmt", "-check", "-no-color", FOLDER], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
