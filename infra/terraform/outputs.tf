output "subnet_public" {
  description = "In the cluster file: subnet-PUBLIC."
  value       = aws_subnet.public.id
}

output "subnet_private" {
  description = "In the cluster file: subnet-PRIVATE."
  value       = aws_subnet.private.id
}

output "security_group" {
  description = "In the cluster file: sg-CLUSTER."
  value       = aws_security_group.cluster.id
}

output "storage" {
  description = "Where data sets and runs go."
  value       = "s3://${aws_s3_bucket.store.id}"
}
