package main

import (
	"context"
	"fmt"
	"io"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/grpchijack"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
)

type packets = grpc.BidiStreamingServer[types.Packet, types.Packet]

// upload is a build whose only source is a folder that `send` pretends to have.
func upload(send func(packets) error) func(context.Context, target) error {
	return func(ctx context.Context, t target) error {
		state := llb.Local("context", llb.SharedKeyHint(fmt.Sprint("hostile", t.number, time.Now().UnixNano())))
		def, err := llb.Scratch().File(llb.Copy(state, "/", "/")).Marshal(ctx, llb.LinuxAmd64)
		if err != nil {
			return err
		}
		s, err := session.NewSession(ctx, "")
		if err != nil {
			return err
		}
		s.Allow(&folder{send: send})
		// The library's own Solve would not send a definition whose folders it does not serve.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer s.Close()
		go s.Run(ctx, grpchijack.Dialer(t.c.ControlClient()))
		_, err = t.c.ControlClient().Solve(ctx, &controlapi.SolveRequest{
			Ref: identity.NewID(), Definition: def.ToPB(), Session: s.ID(),
		})
		return err
	}
}

// folder is a service for file sync that says what it likes.
type folder struct {
	filesync.UnimplementedFileSyncServer
	send func(packets) error
}

func (f *folder) Register(server *grpc.Server) {
	filesync.RegisterFileSyncServer(server, f)
}

func (f *folder) DiffCopy(stream packets) error {
	return f.send(stream)
}

func list(stream packets, stat *types.Stat) error {
	return stream.Send(&types.Packet{Type: types.PACKET_STAT, Stat: stat})
}

func file(name string, size int64) *types.Stat {
	return &types.Stat{Path: name, Mode: 0o644, Size: size, ModTime: time.Now().UnixNano()}
}

func end(stream packets) error {
	return stream.Send(&types.Packet{Type: types.PACKET_STAT})
}

// serve answers requests for files with `data` until the other side is done.
func serve(stream packets, data func(id uint32) error) error {
	for {
		p, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch p.Type {
		case types.PACKET_REQ:
			if err := data(p.ID); err != nil {
				return err
			}
		case types.PACKET_FIN:
			return stream.Send(&types.Packet{Type: types.PACKET_FIN})
		}
	}
}

func stalls(stream packets) error {
	if err := list(stream, file("a", 1<<20)); err != nil {
		return err
	}
	if err := end(stream); err != nil {
		return err
	}
	return serve(stream, func(id uint32) error {
		// A beginning, and then nothing more.
		if err := stream.Send(&types.Packet{Type: types.PACKET_DATA, ID: id, Data: []byte("beginning")}); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	})
}

func wideAttributes(stream packets) error {
	wide := make([]byte, 3900<<10)
	for n := range 250 {
		stat := file(fmt.Sprintf("%05d", n), 0)
		stat.Xattrs = map[string][]byte{"user.wide": wide}
		if err := list(stream, stat); err != nil {
			return err
		}
	}
	if err := end(stream); err != nil {
		return err
	}
	return serve(stream, func(id uint32) error {
		return stream.Send(&types.Packet{Type: types.PACKET_DATA, ID: id})
	})
}

func sendsMore(stream packets) error {
	if err := list(stream, file("a", 5)); err != nil {
		return err
	}
	if err := end(stream); err != nil {
		return err
	}
	return serve(stream, func(id uint32) error {
		for range 2000 {
			if err := stream.Send(&types.Packet{Type: types.PACKET_DATA, ID: id, Data: make([]byte, 32<<10)}); err != nil {
				return err
			}
		}
		return stream.Send(&types.Packet{Type: types.PACKET_DATA, ID: id})
	})
}

func leadsOut(stream packets) error {
	link := file("a", 0)
	link.Mode = 0o777 | 1<<27 // a symlink, in Go's bits
	link.Linkname = "/etc"
	for _, stat := range []*types.Stat{link, file("a/passwd", 5), file("../out", 5), file("/out", 5)} {
		if err := list(stream, stat); err != nil {
			return err
		}
	}
	if err := end(stream); err != nil {
		return err
	}
	return serve(stream, func(id uint32) error {
		if err := stream.Send(&types.Packet{Type: types.PACKET_DATA, ID: id, Data: []byte("pwned")}); err != nil {
			return err
		}
		return stream.Send(&types.Packet{Type: types.PACKET_DATA, ID: id})
	})
}

func listsWithoutEnd(stream packets) error {
	for n := 0; ; n++ {
		if err := list(stream, file(fmt.Sprintf("%012d", n), 0)); err != nil {
			return err
		}
	}
}
