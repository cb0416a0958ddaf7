// Package ext stands in for a module that Traefik requires and has not published: extensions that its free edition lacks.
package ext

// HTTP has no extensions.
type HTTP struct{}

// DeepCopyInto copies nothing.
func (*HTTP) DeepCopyInto(*HTTP) {}

// Router has no extensions.
type Router struct{}

// DeepCopyInto copies nothing.
func (*Router) DeepCopyInto(*Router) {}
