# Dagster on one machine: the home has one writer, and its lock, its run history and MLflow's are files beside it. The
# disk outlives the machine and is copied every night.

resource "google_compute_network" "custseg" {
  name                    = "custseg"
  auto_create_subnetworks = false
  depends_on              = [google_project_service.used]
}

resource "google_compute_subnetwork" "custseg" {
  name                     = "custseg"
  network                  = google_compute_network.custseg.id
  region                   = var.region
  ip_cidr_range            = "10.20.0.0/28"
  private_ip_google_access = true
}

# Only Google's tunnel reaches the machine, and only who may open it.
resource "google_compute_firewall" "tunnel" {
  name          = "custseg-tunnel"
  network       = google_compute_network.custseg.id
  source_ranges = ["35.235.240.0/20"]
  target_tags   = ["custseg-pipeline"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

resource "google_compute_disk" "home" {
  name = "custseg-home"
  type = "pd-balanced"
  zone = var.zone
  size = var.home_disk_gb

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.used]
}

resource "google_compute_resource_policy" "nightly" {
  name   = "custseg-nightly"
  region = var.region

  snapshot_schedule_policy {
    schedule {
      daily_schedule {
        days_in_cycle = 1
        start_time    = "02:00"
      }
    }
    retention_policy {
      max_retention_days = 14
    }
  }

  depends_on = [google_project_service.used]
}

resource "google_compute_disk_resource_policy_attachment" "nightly" {
  name = google_compute_resource_policy.nightly.name
  disk = google_compute_disk.home.name
  zone = var.zone
}

resource "google_compute_instance" "pipeline" {
  name                      = "custseg-pipeline"
  zone                      = var.zone
  machine_type              = var.pipeline_machine_type
  tags                      = ["custseg-pipeline"]
  allow_stopping_for_update = true

  boot_disk {
    initialize_params {
      image = "cos-cloud/cos-stable"
      size  = 20
    }
  }

  attached_disk {
    source      = google_compute_disk.home.id
    device_name = "home"
  }

  # No access_config: the machine has no address outside.
  network_interface {
    subnetwork = google_compute_subnetwork.custseg.id
  }

  service_account {
    email  = google_service_account.pipeline.email
    scopes = ["cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot = true
  }

  metadata = {
    enable-oslogin         = "TRUE"
    google-logging-enabled = "true"
    user-data = templatefile("${path.module}/cloud-init.yaml", {
      registry = "${var.region}-docker.pkg.dev"
      image    = "${local.images}/pipeline-gcp:${var.image_tag}"
      settings = templatefile("${path.module}/custseg.toml", {
        project  = var.project
        region   = var.region
        jobs     = google_storage_bucket.jobs.name
        home_uri = local.home_uri
        dataset  = google_bigquery_dataset.segments.dataset_id
        trainer  = google_service_account.trainer.email
        image    = "${local.images}/trainer:${var.image_tag}"

        dataproc_image     = var.dataproc_image
        dataproc_min_lines = var.dataproc_min_lines
        dataproc_max_cost  = var.dataproc_max_cost
        spark              = one(google_service_account.spark[*].email)
        subnetwork         = one(google_compute_subnetwork.batches[*].name)
      })
    })
  }
}

resource "google_iap_tunnel_instance_iam_member" "operators" {
  for_each = var.operators
  zone     = google_compute_instance.pipeline.zone
  instance = google_compute_instance.pipeline.name
  role     = "roles/iap.tunnelResourceAccessor"
  member   = each.value
}

resource "google_compute_instance_iam_member" "operators" {
  for_each      = var.operators
  zone          = google_compute_instance.pipeline.zone
  instance_name = google_compute_instance.pipeline.name
  role          = "roles/compute.osLogin"
  member        = each.value
}

resource "google_service_account_iam_member" "operators" {
  for_each           = var.operators
  service_account_id = google_service_account.pipeline.name
  role               = "roles/iam.serviceAccountUser"
  member             = each.value
}

# gcloud looks at the project and the machine before it opens a tunnel; an owner may anyway.
resource "google_project_iam_custom_role" "visitor" {
  role_id     = "custsegVisitor"
  title       = "Find the machine of custseg's pipeline"
  permissions = ["compute.instances.get", "compute.projects.get"]
}

resource "google_project_iam_member" "operators_find" {
  for_each = var.operators
  project  = var.project
  role     = google_project_iam_custom_role.visitor.id
  member   = each.value
}

resource "google_project_iam_member" "operators_read_logs" {
  for_each = var.operators
  project  = var.project
  role     = "roles/logging.viewer"
  member   = each.value
}
