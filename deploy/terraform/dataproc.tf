# Batches of Dataproc Serverless that sort the lines (docs/spark.md). Nothing here is made without var.dataproc_image;
# what is made costs nothing, a batch does while it runs.

locals {
  has_batches = var.dataproc_image != ""
}

# One address for each machine of the batches that run at the same time: 251 here, and a batch has one more machine than
# [gcp.dataproc] max_executors. They have no addresses outside, so Google's services have to be reached without one.
resource "google_compute_subnetwork" "batches" {
  count                    = local.has_batches ? 1 : 0
  name                     = "custseg-batches"
  network                  = google_compute_network.custseg.id
  region                   = var.region
  ip_cidr_range            = "10.20.1.0/24"
  private_ip_google_access = true
}

# Driver and executors talk to each other on ports of their choice; nobody else reaches them, the pipeline neither.
resource "google_compute_firewall" "batches" {
  count              = local.has_batches ? 1 : 0
  name               = "custseg-batches"
  network            = google_compute_network.custseg.id
  source_ranges      = [google_compute_subnetwork.batches[0].ip_cidr_range]
  destination_ranges = [google_compute_subnetwork.batches[0].ip_cidr_range]

  allow {
    protocol = "all"
  }
}

resource "google_service_account" "spark" {
  count        = local.has_batches ? 1 : 0
  account_id   = "custseg-spark"
  display_name = "custseg: batches on Dataproc Serverless"
}

# The pipeline starts and follows batches. No clusters, sessions or workflows, which the role Dataproc Editor has besides.

resource "google_project_iam_custom_role" "batch_starter" {
  count   = local.has_batches ? 1 : 0
  role_id = "custsegBatchStarter"
  title   = "Start and follow custseg's batches on Dataproc Serverless"
  permissions = [
    "dataproc.batches.cancel",
    "dataproc.batches.create",
    "dataproc.batches.get",
    "dataproc.batches.list",
    "dataproc.operations.cancel",
  ]
}

resource "google_project_iam_member" "pipeline_batches" {
  count   = local.has_batches ? 1 : 0
  project = var.project
  role    = google_project_iam_custom_role.batch_starter[0].id
  member  = google_service_account.pipeline.member
}

resource "google_service_account_iam_member" "pipeline_starts_spark" {
  count              = local.has_batches ? 1 : 0
  service_account_id = google_service_account.spark[0].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.pipeline.member
}

# Batches. Dataproc demands its role of every account that a batch runs as.

resource "google_project_iam_member" "spark_worker" {
  count   = local.has_batches ? 1 : 0
  project = var.project
  role    = "roles/dataproc.worker"
  member  = google_service_account.spark[0].member
}

# What a batch is given and leaves, its messages, and Dataproc's own files of it.
resource "google_storage_bucket_iam_member" "spark_jobs" {
  count  = local.has_batches ? 1 : 0
  bucket = google_storage_bucket.jobs.name
  role   = "roles/storage.objectUser"
  member = google_service_account.spark[0].member
}

# Raw lines are read where they are.
resource "google_storage_bucket_iam_member" "spark_tables" {
  count  = local.has_batches ? 1 : 0
  bucket = google_storage_bucket.home.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.spark[0].member

  condition {
    title      = "tables"
    expression = "resource.name.startsWith('projects/_/buckets/${google_storage_bucket.home.name}/objects/home/tables/')"
  }
}

resource "google_artifact_registry_repository_iam_member" "spark_images" {
  count      = local.has_batches ? 1 : 0
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.spark[0].member
}
