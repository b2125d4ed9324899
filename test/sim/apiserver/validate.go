// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	schedulingvalidation "k8s.io/kubernetes/pkg/apis/scheduling/validation"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagevalidation "k8s.io/kubernetes/pkg/apis/storage/validation"
)

// validateNew returns the error with which the API server refuses a new built-in
// object, by its own code.
func (s *Server) validateNew(r *resource, o runtime.Object) error {
	internal, err := legacyscheme.Scheme.New(r.gvk.GroupKind().WithVersion(runtime.APIVersionInternal))
	if err != nil {
		return nil // not built in
	}
	if err := legacyscheme.Scheme.Convert(o, internal, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if errs := validate(internal); len(errs) > 0 {
		return apierrors.NewInvalid(r.gvk.GroupKind(), accessor(o).GetName(), errs)
	}
	return nil
}

// validateUpdate is validateNew for the new spec of a workload. Pods are not looked
// at: almost nothing of them can change.
func (s *Server) validateUpdate(r *resource, o runtime.Object) error {
	if r.gvk.Kind == "Pod" {
		return nil
	}
	return s.validateNew(r, o)
}

func validate(o runtime.Object) field.ErrorList {
	switch t := o.(type) {
	case *core.Pod:
		opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&t.Spec, nil, &t.ObjectMeta, nil)
		opts.ResourceIsPod = true
		return corevalidation.ValidatePodCreate(t, opts)
	case *core.Node:
		return corevalidation.ValidateNode(t)
	case *core.Namespace:
		return corevalidation.ValidateNamespace(t)
	case *core.PersistentVolumeClaim:
		return corevalidation.ValidatePersistentVolumeClaim(t, corevalidation.ValidationOptionsForPersistentVolumeClaim(t, nil))
	case *core.PersistentVolume:
		return corevalidation.ValidatePersistentVolume(t, corevalidation.ValidationOptionsForPersistentVolume(t, nil))
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(t, podutil.GetValidationOptionsFromPodTemplate(&t.Spec.Template, nil))
	case *apps.ReplicaSet:
		return appsvalidation.ValidateReplicaSet(t, podutil.GetValidationOptionsFromPodTemplate(&t.Spec.Template, nil))
	case *apps.DaemonSet:
		return appsvalidation.ValidateDaemonSet(t, podutil.GetValidationOptionsFromPodTemplate(&t.Spec.Template, nil))
	case *apps.StatefulSet:
		return appsvalidation.ValidateStatefulSet(t, appsvalidation.StatefulSetValidationOptions{}, podutil.GetValidationOptionsFromPodTemplate(&t.Spec.Template, nil))
	case *batch.Job:
		return batchvalidation.ValidateJobCreate(t, batchvalidation.JobValidationOptions{
			PodValidationOptions: podutil.GetValidationOptionsFromPodTemplate(&t.Spec.Template, nil), RequirePrefixedLabels: true,
		})
	case *batch.CronJob:
		return batchvalidation.ValidateCronJobCreate(t, podutil.GetValidationOptionsFromPodTemplate(&t.Spec.JobTemplate.Spec.Template, nil))
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(t, policyvalidation.PodDisruptionBudgetValidationOptions{})
	case *scheduling.PriorityClass:
		return schedulingvalidation.ValidatePriorityClass(t)
	case *storage.StorageClass:
		return storagevalidation.ValidateStorageClass(t)
	}
	return nil
}
