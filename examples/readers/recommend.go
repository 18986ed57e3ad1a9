// Recommendations for a customer, read from Redis with nothing but Go's standard library.
//
//	go run recommend.go 127.0.0.1:6379 USER [LIST] [ITEM]
//
// The same order as the Python reader: own list, neighbours of the item looked at, trending.
// A real shop uses its Redis client; the three commands stay the same.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
)

type entry struct {
	ItemID string  `json:"item_id"`
	Score  float64 `json:"score"`
	Reason struct {
		Source  string `json:"source"`
		Because string `json:"because"`
	} `json:"reason"`
}

type answer struct {
	Origin string   `json:"origin"`
	Items  []string `json:"items"`
}

func ask(redis net.Conn, replies *bufio.Reader, words ...string) ([]entry, error) {
	fmt.Fprintf(redis, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(redis, "$%d\r\n%s\r\n", len(word), word)
	}
	head, err := replies.ReadString('\n')
	if err != nil {
		return nil, err
	}
	head = strings.TrimSpace(head)
	if head[0] == '-' {
		return nil, errors.New(head[1:])
	}
	size, err := strconv.Atoi(head[1:]) // "$<bytes>"; -1: there is none
	if err != nil || size < 0 {
		return nil, err
	}
	text := make([]byte, size+2)
	if _, err = io.ReadFull(replies, text); err != nil {
		return nil, err
	}
	var entries []entry
	err = json.Unmarshal(text[:size], &entries)
	return entries, err
}

func main() {
	arguments := append(os.Args[1:], "", "", "", "")[:4]
	address, user, list, item := arguments[0], arguments[1], arguments[2], arguments[3]
	if list == "" {
		list = "home"
	}
	redis, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	defer redis.Close()
	replies := bufio.NewReader(redis)
	found := answer{Origin: "nothing", Items: []string{}}
	for _, try := range []struct {
		origin  string
		command []string
	}{
		{"customer", []string{"HGET", "rec:" + user, list}},
		{"similar", []string{"GET", "similar:" + item}},
		{"trending", []string{"GET", "trending:all"}},
	} {
		entries, err := ask(redis, replies, try.command...)
		if err != nil {
			log.Fatal(err)
		}
		if len(entries) > 0 {
			found.Origin = try.origin
			for _, e := range entries {
				found.Items = append(found.Items, e.ItemID)
			}
			break
		}
	}
	line, _ := json.Marshal(found)
	fmt.Println(string(line))
}
