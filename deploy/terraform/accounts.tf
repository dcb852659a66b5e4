# One account for each role, each with what its role needs and on no more than it needs it for.
# tests/test_deploy.py holds the list of what may be granted to whom. That of batches is in dataproc.tf.

resource "google_service_account" "pipeline" {
  account_id   = "custseg-pipeline"
  display_name = "custseg: the pipeline's machine"
}

resource "google_service_account" "trainer" {
  account_id   = "custseg-trainer"
  display_name = "custseg: training jobs on Vertex AI"
}

resource "google_service_account" "service" {
  account_id   = "custseg-service"
  display_name = "custseg: segment lookups on Cloud Run"
}

resource "google_service_account" "deployer" {
  account_id   = "custseg-deployer"
  display_name = "custseg: the repository's deploy workflow"
}

# The pipeline.

resource "google_storage_bucket_iam_member" "pipeline_home" {
  bucket = google_storage_bucket.home.name
  role   = "roles/storage.objectUser"
  member = google_service_account.pipeline.member
}

resource "google_storage_bucket_iam_member" "pipeline_jobs" {
  bucket = google_storage_bucket.jobs.name
  role   = "roles/storage.objectUser"
  member = google_service_account.pipeline.member
}

resource "google_bigquery_dataset_iam_member" "pipeline_segments" {
  dataset_id = google_bigquery_dataset.segments.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.pipeline.member
}

resource "google_bigquery_dataset_iam_member" "pipeline_sources" {
  for_each   = var.source_datasets
  project    = split(".", each.value)[0]
  dataset_id = split(".", each.value)[1]
  role       = "roles/bigquery.dataViewer"
  member     = google_service_account.pipeline.member
}

resource "google_project_iam_member" "pipeline_queries" {
  project = var.project
  role    = "roles/bigquery.jobUser"
  member  = google_service_account.pipeline.member
}

# Large results come through the Storage Read API.
resource "google_project_iam_member" "pipeline_results" {
  project = var.project
  role    = "roles/bigquery.readSessionUser"
  member  = google_service_account.pipeline.member
}

# No endpoints, models or data sets, which the role Vertex AI User has besides.
resource "google_project_iam_custom_role" "training_starter" {
  role_id = "custsegTrainingStarter"
  title   = "Start and follow custseg's training jobs"
  permissions = [
    "aiplatform.customJobs.cancel",
    "aiplatform.customJobs.create",
    "aiplatform.customJobs.get",
    "aiplatform.customJobs.list",
  ]
}

resource "google_project_iam_member" "pipeline_training" {
  project = var.project
  role    = google_project_iam_custom_role.training_starter.id
  member  = google_service_account.pipeline.member
}

resource "google_service_account_iam_member" "pipeline_starts_trainer" {
  service_account_id = google_service_account.trainer.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.pipeline.member
}

resource "google_artifact_registry_repository_iam_member" "pipeline_images" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.pipeline.member
}

resource "google_project_iam_member" "pipeline_logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.pipeline.member
}

# Training jobs.

resource "google_storage_bucket_iam_member" "trainer_jobs" {
  bucket = google_storage_bucket.jobs.name
  role   = "roles/storage.objectUser"
  member = google_service_account.trainer.member
}

resource "google_project_iam_member" "trainer_logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.trainer.member
}

# The service: reads releases and lists nothing; writes its prediction log and reads back only that.

resource "google_storage_bucket_iam_member" "service_reads" {
  bucket = google_storage_bucket.home.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.service.member

  condition {
    title      = "releases and its own log"
    expression = "resource.name.startsWith('projects/_/buckets/${google_storage_bucket.home.name}/objects/home/releases/') || resource.name.startsWith('projects/_/buckets/${google_storage_bucket.home.name}/objects/home/prediction_log/')"
  }
}

resource "google_storage_bucket_iam_member" "service_writes" {
  bucket = google_storage_bucket.home.name
  role   = "roles/storage.objectCreator"
  member = google_service_account.service.member

  condition {
    title      = "the prediction log"
    expression = "resource.name.startsWith('projects/_/buckets/${google_storage_bucket.home.name}/objects/home/prediction_log/')"
  }
}

resource "google_secret_manager_secret_iam_member" "service_keys" {
  secret_id = google_secret_manager_secret.api_keys.id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.service.member
}

# The deploy workflow: pushes images, moves the service to them, restarts the pipeline's machine.

resource "google_artifact_registry_repository_iam_member" "deployer_images" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.deployer.member
}

resource "google_cloud_run_v2_service_iam_member" "deployer_service" {
  name     = google_cloud_run_v2_service.service.name
  location = google_cloud_run_v2_service.service.location
  role     = "roles/run.developer"
  member   = google_service_account.deployer.member
}

resource "google_service_account_iam_member" "deployer_runs_as_service" {
  service_account_id = google_service_account.service.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.deployer.member
}

resource "google_project_iam_custom_role" "restarter" {
  role_id     = "custsegRestarter"
  title       = "Restart the machine of custseg's pipeline"
  permissions = ["compute.instances.get", "compute.instances.reset"]
}

# Whether the restart is done is asked of the zone's operations, and those are checked on the project.
resource "google_project_iam_custom_role" "operation_watcher" {
  role_id     = "custsegOperationWatcher"
  title       = "See whether custseg's machine has been restarted"
  permissions = ["compute.zoneOperations.get"]
}

resource "google_project_iam_member" "deployer_watches" {
  project = var.project
  role    = google_project_iam_custom_role.operation_watcher.id
  member  = google_service_account.deployer.member
}

resource "google_compute_instance_iam_member" "deployer_restarts" {
  zone          = google_compute_instance.pipeline.zone
  instance_name = google_compute_instance.pipeline.name
  role          = google_project_iam_custom_role.restarter.id
  member        = google_service_account.deployer.member
}
