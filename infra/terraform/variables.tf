variable "name" {
  description = "Prefix of all names; the cluster files expect poma3d."
  type        = string
  default     = "poma3d"
}

variable "region" {
  description = "Where everything is; the region of the cluster file."
  type        = string
  default     = "us-west-2"
}

variable "zone" {
  description = "One zone: training nodes must be close together, and traffic between zones costs."
  type        = string
  default     = "us-west-2a"
}

variable "bucket" {
  description = "Name of the bucket for data sets and runs, unique in the world."
  type        = string
}

variable "data_prefixes" {
  description = "Prefixes of data sets that jobs read, and that ingest and embed write."
  type        = list(string)
  default     = ["data/"]
}

variable "run_prefixes" {
  description = "Prefixes of runs, where jobs read, write and delete checkpoints and metrics."
  type        = list(string)
  default     = ["runs/"]
}

variable "ssh_from" {
  description = "Who may reach the head by SSH: your address as CIDR, such as 203.0.113.7/32."
  type        = string

  validation {
    condition     = can(cidrhost(var.ssh_from, 0)) && !endswith(var.ssh_from, "/0")
    error_message = "ssh_from must be a CIDR block of your own, not the whole internet."
  }
}

variable "old_versions_days" {
  description = "Days for which overwritten and deleted objects can be brought back."
  type        = number
  default     = 14
}
