# The home: releases, tables, what lands, and the service's prediction log.
resource "google_storage_bucket" "home" {
  name                        = "${var.project}-custseg-home"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  soft_delete_policy {
    retention_duration_seconds = 604800
  }

  lifecycle_rule {
    condition {
      age            = var.prediction_log_days
      matches_prefix = ["home/prediction_log/"]
    }
    action {
      type = "Delete"
    }
  }

  lifecycle_rule {
    condition {
      age            = 365
      matches_prefix = ["home/landing_fetched/"]
    }
    action {
      type = "Delete"
    }
  }

  # Large files of tables go up in parts; what a killed pipeline left of one would be paid for and never seen.
  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  depends_on = [google_project_service.used]
}

# What is passed to training jobs and back. A bucket of its own, so that a job can reach nothing else.
resource "google_storage_bucket" "jobs" {
  name                        = "${var.project}-custseg-jobs"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # Not the models' files: a version that is deployed again needs them.
  lifecycle_rule {
    condition {
      age            = 14
      matches_prefix = ["custseg/jobs/"]
    }
    action {
      type = "Delete"
    }
  }

  depends_on = [google_project_service.used]
}

resource "google_bigquery_dataset" "segments" {
  dataset_id                 = "customer_segments"
  location                   = var.region
  description                = "Customer segments by snapshot, published by custseg."
  delete_contents_on_destroy = false
  depends_on                 = [google_project_service.used]
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "custseg"
  location      = var.region
  format        = "DOCKER"

  cleanup_policies {
    id     = "keep-the-last"
    action = "KEEP"
    most_recent_versions {
      keep_count = 10
    }
  }

  cleanup_policies {
    id     = "delete-the-old"
    action = "DELETE"
    condition {
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.used]
}

# The value is added by hand (docs/gcp.md), so that it is in no state and no repository.
resource "google_secret_manager_secret" "api_keys" {
  secret_id = "custseg-api-keys"

  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }

  depends_on = [google_project_service.used]
}
