// The original server of this network, rebuilt: Go, httprouter, TensorFlow's C library.
//
//	curl -F image=@104.png localhost:8000/recognize
//
// tests/benchmarks/serving.py builds it and measures it beside the other servers. It answers a
// form with one 28 x 28 gray PNG in the field `image`, and checks little else.
package main

/*
#include <stdlib.h>
#include <tensorflow/c/c_api.h>
*/
import "C"

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"io"
	"log"
	"net/http"
	"unsafe"

	"github.com/julienschmidt/httprouter"
)

// TensorFlow's ConfigProto as bytes: intra_op_parallelism_threads (field 2) is 1, and
// inter_op_parallelism_threads (field 5) is -1, so that a call computes on its own thread.
var callersThread = []byte{
	2 << 3, 1,
	5 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
}

// A network is a SavedModel with the operations `inputdata`, float32 (N, 784), and `inference`,
// int64 (N,).
type network struct {
	session       *C.TF_Session
	input, output C.TF_Output
}

type answer struct {
	Filename string  `json:"filename"`
	Labels   []int64 `json:"labels"`
}

func main() {
	port := flag.Int("port", 8000, "port to listen on")
	model := flag.String("model", "data/mnistmodel", "folder of the SavedModel")
	inline := flag.Bool("inline", false, "compute on the caller's thread, with no thread pool")
	flag.Parse()
	var config []byte
	if *inline {
		config = callersThread
	}
	network, err := load(*model, config)
	if err != nil {
		log.Fatal(err)
	}
	router := httprouter.New()
	router.POST("/recognize", network.handle)
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), router))
}

func (n *network) handle(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	file, header, err := r.FormFile("image")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer file.Close()
	pixels, err := decode(file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	labels, err := n.recognize(pixels)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer{header.Filename, labels})
}

// decode returns the 784 pixels of a gray PNG file.
func decode(file io.Reader) ([]float32, error) {
	decoded, err := png.Decode(file)
	if err != nil {
		return nil, err
	}
	gray, ok := decoded.(*image.Gray)
	if !ok || len(gray.Pix) != 28*28 {
		return nil, errors.New("the image is not gray and of 28 x 28 pixels")
	}
	pixels := make([]float32, len(gray.Pix))
	for i, pixel := range gray.Pix {
		pixels[i] = float32(pixel)
	}
	return pixels, nil
}

// load reads a SavedModel; config is a serialized ConfigProto, or empty.
func load(folder string, config []byte) (*network, error) {
	status := C.TF_NewStatus()
	defer C.TF_DeleteStatus(status)
	options := C.TF_NewSessionOptions()
	defer C.TF_DeleteSessionOptions(options)
	if len(config) > 0 {
		C.TF_SetConfig(options, unsafe.Pointer(&config[0]), C.size_t(len(config)), status)
		if err := check(status); err != nil {
			return nil, err
		}
	}
	path, tag := C.CString(folder), C.CString("model")
	defer C.free(unsafe.Pointer(path))
	defer C.free(unsafe.Pointer(tag))
	graph := C.TF_NewGraph()
	session := C.TF_LoadSessionFromSavedModel(options, nil, path, &tag, 1, graph, nil, status)
	if err := check(status); err != nil {
		return nil, err
	}
	return &network{session, operation(graph, "inputdata"), operation(graph, "inference")}, nil
}

func operation(graph *C.TF_Graph, name string) C.TF_Output {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return C.TF_Output{oper: C.TF_GraphOperationByName(graph, text)}
}

// recognize returns the label of one image of 784 pixels.
func (n *network) recognize(pixels []float32) ([]int64, error) {
	shape, size := []C.int64_t{1, C.int64_t(len(pixels))}, 4*len(pixels)
	input := C.TF_AllocateTensor(C.TF_FLOAT, &shape[0], 2, C.size_t(size))
	defer C.TF_DeleteTensor(input)
	copy(unsafe.Slice((*float32)(C.TF_TensorData(input)), len(pixels)), pixels)
	status := C.TF_NewStatus()
	defer C.TF_DeleteStatus(status)
	var output *C.TF_Tensor
	C.TF_SessionRun(n.session, nil,
		&n.input, &input, 1, &n.output, &output, 1, nil, 0, nil, status)
	if err := check(status); err != nil {
		return nil, err
	}
	defer C.TF_DeleteTensor(output)
	return []int64{*(*int64)(C.TF_TensorData(output))}, nil
}

func check(status *C.TF_Status) error {
	if C.TF_GetCode(status) != C.TF_OK {
		return errors.New(C.GoString(C.TF_Message(status)))
	}
	return nil
}
