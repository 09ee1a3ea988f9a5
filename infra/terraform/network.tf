# One zone: a public subnet for the head, a private one for all else. From outside only SSH to the head, from one
# address. The bucket is reached through a gateway inside the network, which costs nothing.

resource "aws_vpc" "cluster" {
  cidr_block           = "10.42.0.0/16"
  enable_dns_hostnames = true
}

resource "aws_internet_gateway" "cluster" {
  vpc_id = aws_vpc.cluster.id
}

resource "aws_subnet" "public" {
  vpc_id                  = aws_vpc.cluster.id
  cidr_block              = "10.42.0.0/24"
  availability_zone       = var.zone
  map_public_ip_on_launch = true
}

# 32 addresses a P5 node: eight nodes and more fit a /20.
resource "aws_subnet" "private" {
  vpc_id            = aws_vpc.cluster.id
  cidr_block        = "10.42.16.0/20"
  availability_zone = var.zone
}

resource "aws_eip" "nat" {
  domain = "vpc"
}

resource "aws_nat_gateway" "cluster" {
  allocation_id = aws_eip.nat.id
  subnet_id     = aws_subnet.public.id
  depends_on    = [aws_internet_gateway.cluster]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.cluster.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.cluster.id
  }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.cluster.id

  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.cluster.id
  }
}

resource "aws_route_table_association" "public" {
  subnet_id      = aws_subnet.public.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "private" {
  subnet_id      = aws_subnet.private.id
  route_table_id = aws_route_table.private.id
}

resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.cluster.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.public.id, aws_route_table.private.id]
}

resource "aws_security_group" "cluster" {
  name        = "${var.name}-cluster"
  description = "SSH from one address; everything between the nodes"
  vpc_id      = aws_vpc.cluster.id
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  security_group_id = aws_security_group.cluster.id
  description       = "SSH to the head"
  cidr_ipv4         = var.ssh_from
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

resource "aws_vpc_security_group_ingress_rule" "inside" {
  security_group_id            = aws_security_group.cluster.id
  description                  = "Between the nodes"
  referenced_security_group_id = aws_security_group.cluster.id
  ip_protocol                  = "-1"
}

# EFA is no IP traffic: it needs a rule that names the group, also on the way out.
resource "aws_vpc_security_group_egress_rule" "inside" {
  security_group_id            = aws_security_group.cluster.id
  description                  = "Between the nodes, EFA too"
  referenced_security_group_id = aws_security_group.cluster.id
  ip_protocol                  = "-1"
}

resource "aws_vpc_security_group_egress_rule" "out" {
  security_group_id = aws_security_group.cluster.id
  description       = "Images, AWS's interfaces, the model hub"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_placement_group" "train" {
  name     = var.name
  strategy = "cluster"
}
