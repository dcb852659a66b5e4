variable "project" {
  description = "Project that everything is made in and billed to."
  type        = string
}

variable "region" {
  description = "Region of the bucket, the dataset, the service and the machines, such as europe-west1."
  type        = string
}

variable "zone" {
  description = "Zone of the pipeline's machine, in the region."
  type        = string
}

variable "github_repository" {
  description = "owner/name of the repository whose workflow may deploy."
  type        = string
}

variable "github_repository_id" {
  description = "Number of that repository: gh api repos/OWNER/NAME --jq .id"
  type        = string
}

variable "pipeline_machine_type" {
  description = "Machine of the pipeline; docs/gcp.md says which is enough for how many transactions."
  type        = string
  default     = "e2-standard-2"
}

variable "service_cpu" {
  description = "Processors of the service."
  type        = string
  default     = "1"
}

variable "service_memory" {
  description = "Memory of the service, which also holds its copy of three releases; docs/gcp.md says how much."
  type        = string
  default     = "2Gi"
}

variable "home_disk_gb" {
  description = "Disk of the home, in GB."
  type        = number
  default     = 50
}

variable "image_tag" {
  description = "Tag of the images to run; the workflow pushes each commit's under its id and as production."
  type        = string
  default     = "production"
}

variable "dataproc_image" {
  description = "Image of the target dataproc, in the repository custseg; batches that cost money sort large logs with it. Without it there are none."
  type        = string
  default     = ""
}

variable "dataproc_min_lines" {
  description = "Lines from which on they are sorted by a batch; fewer are on the pipeline's machine."
  type        = number
  default     = 50000000
}

variable "dataproc_max_cost" {
  description = "USD; a batch that could cost more is not started."
  type        = number
  default     = 10
}

variable "source_datasets" {
  description = "Datasets, project.dataset, that a bq:// source is read from."
  type        = set(string)
  default     = []
}

variable "service_callers" {
  description = "Who may call the service, such as allUsers (its API keys still apply) or group:shop@example.com."
  type        = set(string)
  default     = []
}

variable "operators" {
  description = "Who may open Dagster through the tunnel and read the machine's logs, such as group:data@example.com."
  type        = set(string)
  default     = []
}

variable "prediction_log_days" {
  description = "Days after which a file of the prediction log that nobody took in is deleted."
  type        = number
  default     = 30
}
