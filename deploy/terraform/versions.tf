terraform {
  required_version = ">= 1.7"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.20"
    }
  }

  # Fill in with: terraform init -backend-config="bucket=NAME-OF-A-BUCKET-FOR-STATE"
  backend "gcs" {
    prefix = "custseg"
  }
}

provider "google" {
  project = var.project
  region  = var.region
}
