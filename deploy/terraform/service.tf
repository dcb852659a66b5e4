resource "google_cloud_run_v2_service" "service" {
  name                = "custseg"
  location            = var.region
  deletion_protection = false

  template {
    service_account = google_service_account.service.email

    scaling {
      # A release is fetched and verified when an instance starts: one is always there.
      min_instance_count = 1
      max_instance_count = 4
    }

    containers {
      image = "${local.images}/serving-gcp:${var.image_tag}"
      args  = ["--host", "0.0.0.0", "--port", "8080", "--workers", "2"]

      ports {
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = var.service_cpu
          memory = var.service_memory
        }
        # The follower and the log's writer work between requests.
        cpu_idle = false
      }

      env {
        name  = "CUSTSEG_FOLLOW"
        value = local.home_uri
      }

      env {
        name  = "CUSTSEG_KEYS"
        value = "/secrets/keys.json"
      }

      volume_mounts {
        name       = "keys"
        mount_path = "/secrets"
      }

      startup_probe {
        http_get {
          path = "/readyz"
        }
        period_seconds    = 2
        failure_threshold = 60
      }

      liveness_probe {
        http_get {
          path = "/healthz"
        }
      }
    }

    volumes {
      name = "keys"
      secret {
        secret = google_secret_manager_secret.api_keys.secret_id
        items {
          version = "latest"
          path    = "keys.json"
        }
      }
    }
  }

  lifecycle {
    # The workflow moves the service to each commit's image.
    ignore_changes = [template[0].containers[0].image, client, client_version]
  }

  depends_on = [
    google_storage_bucket_iam_member.service_reads,
    google_secret_manager_secret_iam_member.service_keys,
  ]
}

resource "google_cloud_run_v2_service_iam_member" "callers" {
  for_each = var.service_callers
  name     = google_cloud_run_v2_service.service.name
  location = google_cloud_run_v2_service.service.location
  role     = "roles/run.invoker"
  member   = each.value
}

locals {
  images   = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
  home_uri = "gs://${google_storage_bucket.home.name}/home"
}
