# A cluster with node auto-provisioning in its own network.
terraform {
  required_providers {
    azurerm = { source = "hashicorp/azurerm" }
  }
}

provider "azurerm" {
  features {}
  resource_provider_registrations = "none"
}

variable "mode" {
  type    = string
  default = "Auto"
}

variable "default_node_pools" {
  type    = string
  default = "None"
}

variable "tags" {
  type    = map(string)
  default = {}
}

variable "more_nodes" {
  type    = number
  default = 1
}

resource "azurerm_resource_group" "this" {
  name     = "rg-tofu"
  location = "eastus"
  tags     = var.tags
}

resource "azurerm_virtual_network" "this" {
  name                = "net"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  address_space       = ["10.40.0.0/16"]
}

resource "azurerm_subnet" "nodes" {
  name                 = "nodes"
  resource_group_name  = azurerm_resource_group.this.name
  virtual_network_name = azurerm_virtual_network.this.name
  address_prefixes     = ["10.40.0.0/20"]
}

resource "azurerm_user_assigned_identity" "cluster" {
  name                = "cluster"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
}

resource "azurerm_role_assignment" "network" {
  scope                = azurerm_subnet.nodes.id
  role_definition_name = "Network Contributor"
  principal_id         = azurerm_user_assigned_identity.cluster.principal_id
}

resource "azurerm_kubernetes_cluster" "this" {
  name                = "tofu"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  dns_prefix          = "tofu"
  tags                = var.tags

  default_node_pool {
    name           = "system"
    node_count     = 1
    vm_size        = "Standard_D2s_v5"
    vnet_subnet_id = azurerm_subnet.nodes.id

    upgrade_settings { max_surge = "10%" } # AKS's default
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.cluster.id]
  }

  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium"
  }

  node_provisioning_profile {
    mode               = var.mode
    default_node_pools = var.default_node_pools
  }

  depends_on = [azurerm_role_assignment.network]
}

resource "azurerm_kubernetes_cluster_node_pool" "more" {
  name                  = "more"
  kubernetes_cluster_id = azurerm_kubernetes_cluster.this.id
  vm_size               = "Standard_D2s_v5"
  node_count            = var.more_nodes
  vnet_subnet_id        = azurerm_subnet.nodes.id

  upgrade_settings { max_surge = "10%" }
}

output "mode" {
  value = azurerm_kubernetes_cluster.this.node_provisioning_profile[0].mode
}

output "kubeconfig" {
  value     = azurerm_kubernetes_cluster.this.kube_config_raw
  sensitive = true
}
