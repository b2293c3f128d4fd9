//go:build cuda

package gpu

import (
	"fmt"
	"runtime"
	"unsafe"

	"gorgonia.org/cu"
)

// Built reports whether this program contains the CUDA engine.
const Built = true

// Devices lists the visible GPUs. The error is one line that says why there are none.
func Devices() ([]DeviceInfo, error) {
	if err := driverStatus(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("%w: count devices: %w", ErrUnavailable, err)
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: no GPU is visible", ErrUnavailable)
	}
	var out []DeviceInfo
	for i := range n {
		d, err := describeDevice(i)
		if err != nil {
			return nil, fmt.Errorf("%w: GPU %d: %w", ErrUnavailable, i, err)
		}
		out = append(out, d)
	}
	return out, nil
}

func describeDevice(ordinal int) (DeviceInfo, error) {
	out := DeviceInfo{Ordinal: ordinal}
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return out, err
	}
	if out.Name, err = dev.Name(); err != nil {
		return out, err
	}
	if id, err := dev.UUID(); err == nil {
		out.UUID = id.String()
	}
	if out.Memory, err = dev.TotalMem(); err != nil {
		return out, err
	}
	if out.Major, err = dev.Attribute(cu.ComputeCapabilityMajor); err != nil {
		return out, err
	}
	out.Minor, err = dev.Attribute(cu.ComputeCapabilityMinor)
	return out, err
}

// device is a GPU's primary context and the one OS thread that uses it.
type device struct {
	info   DeviceInfo
	sms    int
	dev    cu.Device
	ctx    cu.CUContext
	stream cu.Stream
	work   chan func()
	ended  chan struct{}
}

// openDevice starts the thread of a GPU.
func openDevice(ordinal int) (*device, error) {
	all, err := Devices()
	if err != nil {
		return nil, err
	}
	if ordinal >= len(all) {
		return nil, fmt.Errorf("%w: GPU %d not found: %d visible", ErrUnavailable, ordinal, len(all))
	}
	d := &device{info: all[ordinal], work: make(chan func()), ended: make(chan struct{})}
	if d.info.Major < 8 {
		return nil, fmt.Errorf("%w: %s has compute capability %d.%d, it must be at least 8.0",
			ErrUnavailable, d, d.info.Major, d.info.Minor)
	}
	started := make(chan error)
	go d.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", d, err)
	}
	return d, nil
}

func (d *device) String() string { return fmt.Sprintf("GPU %d (%s)", d.info.Ordinal, d.info.Name) }

// run is the device's thread: it is never unlocked and ends when run returns.
func (d *device) run(started chan<- error) {
	defer close(d.ended)
	runtime.LockOSThread()
	if err := d.start(); err != nil {
		started <- err
		return
	}
	started <- nil
	for fn := range d.work {
		fn()
	}
	_ = d.stream.Destroy()
	_ = d.dev.ReleasePrimaryCtx()
}

func (d *device) start() error {
	var err error
	if d.dev, err = cu.GetDevice(d.info.Ordinal); err != nil {
		return err
	}
	if d.sms, err = d.dev.Attribute(cu.MultiprocessorCount); err != nil {
		return err
	}
	_ = d.dev.SetPrimaryCtxFlags(cu.SchedBlockingSync) // fails if the context exists already
	if d.ctx, err = d.dev.RetainPrimaryCtx(); err != nil {
		return fmt.Errorf("create a context: %w", err)
	}
	if err = cu.SetCurrentContext(d.ctx); err != nil {
		return fmt.Errorf("set the current context: %w", err)
	}
	d.stream, err = cu.MakeStream(cu.NonBlocking)
	if err != nil {
		return fmt.Errorf("create a stream: %w", err)
	}
	return nil
}

// do runs fn on the device's thread and waits for it.
func (d *device) do(fn func() error) error {
	done := make(chan error, 1)
	d.work <- func() { done <- fn() }
	return <-done
}

// elsewhere runs fn on another thread with the device's context, for calls that must
// not wait for the device's thread.
func (d *device) elsewhere(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends with its context
		if err := cu.SetCurrentContext(d.ctx); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

func (d *device) close() {
	close(d.work)
	<-d.ended
}

// launch enqueues a kernel. args are its parameters, 8 bytes each.
func (d *device) launch(fn cu.Function, grid [3]int, block, shared int, args ...uint64) error {
	var room [40]unsafe.Pointer
	ptrs := room[:0]
	for i := range args {
		ptrs = append(ptrs, unsafe.Pointer(&args[i]))
	}
	return fn.Launch(grid[0], grid[1], grid[2], block, 1, 1, shared, d.stream, ptrs)
}
