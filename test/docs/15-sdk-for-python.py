# Copyright The nap Authors.
# SPDX-License-Identifier: Apache-2.0
"""The same resources with the Azure SDK for Python: azure-identity and the management clients."""

import json
import os
import pathlib
import re
import unittest

from azure.core import MatchConditions
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.identity import ClientSecretCredential, DefaultAzureCredential
from azure.mgmt.containerservice import ContainerServiceClient
from azure.mgmt.containerservice import models as aks
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.deployments import DeploymentsMgmtClient
from azure.mgmt.resource.deployments import models as deployments
from azure.mgmt.resource.resources import ResourceManagementClient

ARM = os.environ["AZURE_AUTHORITY_HOST"].rstrip("/")
TENANT = os.environ["AZURE_TENANT_ID"]
SUBSCRIPTION = os.environ["AZURE_SUBSCRIPTION_ID"]
LOCATION = os.environ.get("LOCATION", "eastus")
GROUP = "rg-15-sdk-for-python"
TEMPLATE = pathlib.Path(__file__).parent / "templates" / "identity.json"


def credential(secret=os.environ["AZURE_CLIENT_SECRET"]):
    return ClientSecretCredential(
        TENANT, os.environ["AZURE_CLIENT_ID"], secret, authority=ARM, disable_instance_discovery=True
    )


def client(kind, cred=None):
    """Returns a management client with this Azure's endpoint and token audience."""
    return kind(cred or credential(), SUBSCRIPTION, base_url=ARM, credential_scopes=[ARM + "//.default"], polling_interval=1)


def cluster(mode, **properties):
    return aks.ManagedCluster(
        location=LOCATION,
        identity=aks.ManagedClusterIdentity(type="SystemAssigned"),
        dns_prefix="sdk",
        agent_pool_profiles=[
            aks.ManagedClusterAgentPoolProfile(name="system", count=1, mode="System", vm_size="Standard_D2s_v5")
        ],
        network_profile=aks.ContainerServiceNetworkProfile(
            network_plugin="azure", network_plugin_mode="overlay", network_dataplane="cilium", network_policy="cilium"
        ),
        node_provisioning_profile=aks.ManagedClusterNodeProvisioningProfile(mode=mode),
        **properties,
    )


class Documentation(unittest.TestCase):
    """The steps of a how-to page, in the order of their names; each depends on the earlier ones."""

    @classmethod
    def setUpClass(cls):
        cls.resources = client(ResourceManagementClient)
        cls.network = client(NetworkManagementClient)
        cls.aks = client(ContainerServiceClient)

    @classmethod
    def tearDownClass(cls):
        if cls.resources.resource_groups.check_existence(GROUP):
            cls.resources.resource_groups.begin_delete(GROUP).result(300)

    def refused(self, error, code, call, *args, **kwargs):
        with self.assertRaises(error) as refusal:
            answer = call(*args, **kwargs)
            if hasattr(answer, "result"):
                answer.result(120)
        self.assertEqual(code, refusal.exception.error.code, refusal.exception)
        return refusal.exception

    def test_01_credentials(self):
        with self.assertRaisesRegex(ClientAuthenticationError, "AADSTS7000215"):
            list(client(ResourceManagementClient, credential("wrong")).resource_groups.list())
        default = DefaultAzureCredential(authority=ARM, disable_instance_discovery=True)
        list(client(ResourceManagementClient, default).resource_groups.list())

    def test_02_group(self):
        groups = self.resources.resource_groups
        self.refused(ResourceNotFoundError, "ResourceGroupNotFound", groups.get, GROUP)
        made = groups.create_or_update(GROUP, {"location": LOCATION, "tags": {"by": "sdk"}})
        self.assertEqual("Succeeded", made.properties.provisioning_state)
        self.assertTrue(groups.check_existence(GROUP))
        self.assertEqual({"by": "sdk", "for": "test"}, groups.update(GROUP, {"tags": {"by": "sdk", "for": "test"}}).tags)
        self.assertIn(GROUP, [g.name for g in groups.list()])

    def test_03_network(self):
        made = self.network.virtual_networks.begin_create_or_update(
            GROUP,
            "net",
            {
                "location": LOCATION,
                "properties": {
                    "addressSpace": {"addressPrefixes": ["10.30.0.0/16"]},
                    "subnets": [{"name": "nodes", "properties": {"addressPrefix": "10.30.0.0/20"}}],
                },
            },
        ).result(60)
        self.assertEqual(["nodes"], [s.name for s in made.subnets])
        self.network.subnets.begin_create_or_update(
            GROUP, "net", "more", {"properties": {"addressPrefix": "10.30.16.0/24"}}
        ).result(60)
        self.refused(
            HttpResponseError, "NetcfgSubnetRangesOverlap",
            self.network.subnets.begin_create_or_update, GROUP, "net", "more2", {"properties": {"addressPrefix": "10.30.16.0/25"}},
        )
        self.assertEqual(["more", "nodes"], sorted(s.name for s in self.network.subnets.list(GROUP, "net")))
        self.network.subnets.begin_delete(GROUP, "net", "more").result(60)
        self.refused(ResourceNotFoundError, "ResourceNotFound", self.network.subnets.get, GROUP, "net", "more")

    def test_04_cluster(self):
        clusters = self.aks.managed_clusters
        self.refused(ResourceNotFoundError, "ResourceNotFound", clusters.get, GROUP, "sdk")
        poller = clusters.begin_create_or_update(GROUP, "sdk", cluster("Auto"))
        # during creation no other operation may start
        self.refused(ResourceExistsError, "OperationNotAllowed", clusters.begin_create_or_update, GROUP, "sdk", cluster("Auto"))
        made = poller.result(300)
        self.assertEqual("Succeeded", poller.status())
        self.assertEqual(("Auto", "Auto"), (made.node_provisioning_profile.mode, made.node_provisioning_profile.default_node_pools))
        self.assertIn("sdk", [c.name for c in clusters.list()])
        self.assertEqual(["sdk"], [c.name for c in clusters.list_by_resource_group(GROUP)])
        kubeconfig = clusters.list_cluster_user_credentials(GROUP, "sdk").kubeconfigs[0].value.decode()
        self.assertIn(made.fqdn if made.fqdn in kubeconfig else "https://", kubeconfig)

    def test_05_update(self):
        clusters = self.aks.managed_clusters
        tagged = clusters.begin_update_tags(GROUP, "sdk", {"tags": {"by": "sdk"}}).result(120)
        self.assertEqual(({"by": "sdk"}, "Auto"), (tagged.tags, tagged.node_provisioning_profile.mode))
        tagged.node_provisioning_profile.default_node_pools = "None"
        changed = clusters.begin_create_or_update(GROUP, "sdk", tagged).result(120)
        self.assertEqual("None", changed.node_provisioning_profile.default_node_pools)
        # the ETag of an older state is refused
        self.refused(
            HttpResponseError, "PreconditionFailed",
            clusters.begin_create_or_update, GROUP, "sdk", changed, etag=tagged.e_tag, match_condition=MatchConditions.IfNotModified,
        )

    def test_06_what_aks_refuses(self):
        wrong = cluster("Auto")
        wrong.network_profile = aks.ContainerServiceNetworkProfile(network_plugin="kubenet")
        refusal = self.refused(HttpResponseError, "OperationNotAllowed", self.aks.managed_clusters.begin_create_or_update, GROUP, "kubenet", wrong)
        self.assertEqual(400, refusal.status_code)
        self.assertRegex(str(refusal), "networkPlugin set to one of")
        self.assertEqual("properties.nodeProvisioningProfile.mode", refusal.error.target)
        self.refused(ResourceNotFoundError, "ResourceNotFound", self.aks.managed_clusters.get, GROUP, "kubenet")

    def test_07_agent_pools(self):
        pools = self.aks.agent_pools
        pool = aks.AgentPool(count=1, mode="User", vm_size="Standard_D2s_v5", node_labels={"team": "nap"})
        made = pools.begin_create_or_update(GROUP, "sdk", "more", pool).result(120)
        self.assertEqual((1, {"team": "nap"}), (made.count, made.node_labels))
        made.count = 2
        self.assertEqual(2, pools.begin_create_or_update(GROUP, "sdk", "more", made).result(120).count)
        self.assertEqual(["more", "system"], sorted(p.name for p in pools.list(GROUP, "sdk") if p.name in ("more", "system")))
        self.assertEqual(2, len(list(self.aks.machines.list(GROUP, "sdk", "more"))))
        made.enable_auto_scaling, made.min_count, made.max_count = True, 1, 3
        self.refused(HttpResponseError, "OperationNotAllowed", pools.begin_create_or_update, GROUP, "sdk", "more", made)
        pools.begin_delete(GROUP, "sdk", "more").result(120)
        self.refused(ResourceNotFoundError, "ResourceNotFound", pools.get, GROUP, "sdk", "more")

    def test_08_versions(self):
        profile = self.aks.managed_clusters.get_upgrade_profile(GROUP, "sdk")
        self.assertRegex(profile.control_plane_profile.kubernetes_version, re.compile(r"^1\.\d+\.\d+$"))
        versions = self.aks.managed_clusters.list_kubernetes_versions(LOCATION)
        self.assertEqual(["1.35", "1.36", "1.37"], [v.version for v in versions.values_property])
        self.assertEqual(["1.36"], [v.version for v in versions.values_property if v.is_default])

    def test_09_template(self):
        deploy = client(DeploymentsMgmtClient).deployments
        parameters = deployments.Deployment(
            properties=deployments.DeploymentProperties(
                mode="Incremental", template=json.loads(TEMPLATE.read_text()), parameters={"name": {"value": "by-template"}}
            )
        )
        self.assertEqual("Succeeded", deploy.begin_validate(GROUP, "sdk", parameters).result(60).properties.provisioning_state)
        done = deploy.begin_create_or_update(GROUP, "sdk", parameters).result(120)
        self.assertEqual("by-template", done.properties.outputs["name"]["value"])
        self.assertIn("by-template", [r.name for r in self.resources.resources.list_by_resource_group(GROUP)])

    def test_10_delete(self):
        self.aks.managed_clusters.begin_delete(GROUP, "sdk").result(120)
        self.refused(ResourceNotFoundError, "ResourceNotFound", self.aks.managed_clusters.get, GROUP, "sdk")
        self.resources.resource_groups.begin_delete(GROUP).result(300)
        self.assertFalse(self.resources.resource_groups.check_existence(GROUP))


if __name__ == "__main__":
    unittest.main(verbosity=2, failfast=True)
