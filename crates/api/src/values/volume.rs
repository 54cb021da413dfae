//! The volume source of a pod without its name, as it stands inline in other objects.

use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, AzureFileVolumeSource, CSIVolumeSource,
    CephFSVolumeSource, CinderVolumeSource, ConfigMapVolumeSource, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    EphemeralVolumeSource, FCVolumeSource, FlexVolumeSource, FlockerVolumeSource, GCEPersistentDiskVolumeSource,
    GitRepoVolumeSource, GlusterfsVolumeSource, HostPathVolumeSource, ISCSIVolumeSource, ImageVolumeSource,
    NFSVolumeSource, PersistentVolumeClaimVolumeSource, PhotonPersistentDiskVolumeSource, PortworxVolumeSource,
    ProjectedVolumeSource, QuobyteVolumeSource, RBDVolumeSource, ScaleIOVolumeSource, SecretVolumeSource,
    StorageOSVolumeSource, Volume, VsphereVirtualDiskVolumeSource,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A struct of the fields, each written as the name in brackets, that are those of a pod's [`Volume`] as well; listed
/// once for all that goes through them.
macro_rules! volume_source {
    ($(#[$of_struct:meta])* pub struct $source:ident { $($(#[$of_field:meta])* $field:ident ($name:literal): $type:ident,)* }) => {
        $(#[$of_struct])*
        pub struct $source {
            $(
                $(#[$of_field])*
                #[serde(default, skip_serializing_if = "Option::is_none", rename = $name)]
                pub $field: Option<$type>,
            )*
        }

        impl $source {
            /// The names of the fields that are set, as they are written in a manifest.
            pub fn set_fields(&self) -> Vec<&'static str> {
                [$(($name, self.$field.is_some())),*].into_iter().filter_map(|(name, set)| set.then_some(name)).collect()
            }

            /// The same source as a pod's volume of the given name.
            pub fn into_volume(self, name: String) -> Volume {
                let Self { $($field),* } = self;
                Volume { name, $($field),* }
            }
        }

        impl From<Volume> for $source {
            fn from(volume: Volume) -> Self {
                let Volume { name: _, $($field),* } = volume;
                Self { $($field),* }
            }
        }
    };
}

volume_source! {
    /// Where a volume's data lives. Exactly one field is set, as the structs that hold a source check on reading.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    pub struct VolumeSource {
        /// An AWS Elastic Block Store disk.
        aws_elastic_block_store ("awsElasticBlockStore"): AWSElasticBlockStoreVolumeSource,
        /// An Azure data disk.
        azure_disk ("azureDisk"): AzureDiskVolumeSource,
        /// An Azure file share.
        azure_file ("azureFile"): AzureFileVolumeSource,
        /// A Ceph file system.
        cephfs ("cephfs"): CephFSVolumeSource,
        /// An OpenStack Cinder volume.
        cinder ("cinder"): CinderVolumeSource,
        /// The entries of a ConfigMap as files.
        config_map ("configMap"): ConfigMapVolumeSource,
        /// An ephemeral volume of a CSI driver.
        csi ("csi"): CSIVolumeSource,
        /// Facts about the pod as files.
        downward_api ("downwardAPI"): DownwardAPIVolumeSource,
        /// A directory that lives as long as the pod.
        empty_dir ("emptyDir"): EmptyDirVolumeSource,
        /// A volume claimed for the life of the pod.
        ephemeral ("ephemeral"): EphemeralVolumeSource,
        /// A Fibre Channel disk.
        fc ("fc"): FCVolumeSource,
        /// A volume of a FlexVolume plugin.
        flex_volume ("flexVolume"): FlexVolumeSource,
        /// A Flocker volume.
        flocker ("flocker"): FlockerVolumeSource,
        /// A Google Compute Engine disk.
        gce_persistent_disk ("gcePersistentDisk"): GCEPersistentDiskVolumeSource,
        /// A clone of a git repository.
        git_repo ("gitRepo"): GitRepoVolumeSource,
        /// A Gluster volume.
        glusterfs ("glusterfs"): GlusterfsVolumeSource,
        /// A directory of the node. With `holdfast standalone`, relative paths are relative to the manifest.
        host_path ("hostPath"): HostPathVolumeSource,
        /// The contents of an OCI image.
        image ("image"): ImageVolumeSource,
        /// An iSCSI disk.
        iscsi ("iscsi"): ISCSIVolumeSource,
        /// An NFS export.
        nfs ("nfs"): NFSVolumeSource,
        /// A PersistentVolumeClaim of the same namespace.
        persistent_volume_claim ("persistentVolumeClaim"): PersistentVolumeClaimVolumeSource,
        /// A Photon Controller disk.
        photon_persistent_disk ("photonPersistentDisk"): PhotonPersistentDiskVolumeSource,
        /// A Portworx volume.
        portworx_volume ("portworxVolume"): PortworxVolumeSource,
        /// Several sources projected into one directory.
        projected ("projected"): ProjectedVolumeSource,
        /// A Quobyte volume.
        quobyte ("quobyte"): QuobyteVolumeSource,
        /// A Ceph block device.
        rbd ("rbd"): RBDVolumeSource,
        /// A ScaleIO volume.
        scale_io ("scaleIO"): ScaleIOVolumeSource,
        /// The entries of a Secret as files.
        secret ("secret"): SecretVolumeSource,
        /// A StorageOS volume.
        storageos ("storageos"): StorageOSVolumeSource,
        /// A vSphere disk.
        vsphere_volume ("vsphereVolume"): VsphereVirtualDiskVolumeSource,
    }
}

impl VolumeSource {
    /// Checks that exactly one source is set; `owner` names the object in the error.
    pub(crate) fn exactly_one(&self, owner: &str) -> Result<(), String> {
        match self.set_fields().as_slice() {
            [_] => Ok(()),
            [] => Err(format!("{owner} needs a volume source such as hostPath or persistentVolumeClaim")),
            several => Err(format!("{owner} must have one volume source, but has {}", several.join(" and "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_source_is_named_as_it_is_written_and_survives_a_pods_volume() {
        let schema = schemars::schema_for!(VolumeSource).to_value();
        let sources: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(sources.len(), 30);
        for name in sources {
            let source: VolumeSource = serde_json::from_value(json!({name.as_str(): {}})).unwrap();
            assert_eq!(source.set_fields(), [name]);
            source.exactly_one("it").unwrap();
            let volume = source.clone().into_volume("v".to_owned());
            let written: Value = serde_json::to_value(&volume).unwrap();
            assert!(written.get(name).is_some() && written["name"] == "v", "{written}");
            assert_eq!(VolumeSource::from(volume), source);
        }
    }
}
