output "service_url" {
  description = "Where the service answers."
  value       = google_cloud_run_v2_service.service.uri
}

output "home_uri" {
  description = "What [gcp.storage] uri is."
  value       = local.home_uri
}

output "images" {
  description = "Where images are pushed."
  value       = local.images
}

output "workload_identity_provider" {
  description = "For the workflow: the variable GCP_WORKLOAD_IDENTITY_PROVIDER."
  value       = google_iam_workload_identity_pool_provider.github.name
}

output "deployer" {
  description = "For the workflow: the variable GCP_DEPLOYER."
  value       = google_service_account.deployer.email
}

output "batches_account" {
  description = "What [gcp.dataproc] service_account is; nothing without dataproc_image."
  value       = one(google_service_account.spark[*].email)
}
